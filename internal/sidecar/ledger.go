package sidecar

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Everything that is kept beside a table stays in its ledger when it is renamed (tombstone.LedgerSchema). Which one that is has to be said before anything is
// stamped, applied or copied by the new name. So who meets a table under a name that was not noted has it noted first.

// noted is what this process knows of the names that were noted. Safe for concurrent use.
type noted struct {
	look sync.Mutex // held by who notes names: one at a time
	mu   sync.Mutex
	now  names.Noted
}

// noteWait bounds each wait for a lock of who notes names.
const noteWait = "set local lock_timeout = '2s'"

func (n *noted) knows(table uint32, name wal.RelationName) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now.Knows(table, name)
}

// loadNoted begins a term: names are noted, which may have changed while no sidecar was at work. The index is loaded behind that.
func (s *Sidecar) loadNoted(ctx context.Context, conn *pgx.Conn) error {
	s.noted.look.Lock()
	defer s.noted.look.Unlock()
	now, err := lookAndRead(ctx, conn)
	if err != nil {
		return err
	}
	s.own.SetLedgers(now.Ledgers)
	s.noted.set(now)
	return nil
}

// noteNames notes the names that tables have now, and tells the index which ledgers they have.
func (s *Sidecar) noteNames(ctx context.Context, d *db) error {
	s.noted.look.Lock()
	defer s.noted.look.Unlock()
	return d.do(ctx, s.lookAndLoad)
}

func (s *Sidecar) lookAndLoad(ctx context.Context, conn *pgx.Conn) error {
	now, err := lookAndRead(ctx, conn)
	if err != nil {
		return err
	}
	return s.takeNoted(ctx, conn, now)
}

// lookAndRead notes the names that tables have now, and reads all that is noted. Who notes a name does both or, where reading fails, does it again: then nothing is new, and it is
// read.
func lookAndRead(ctx context.Context, conn *pgx.Conn) (names.Noted, error) {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, noteWait); err != nil {
			return fmt.Errorf("note names of tables: %w", err)
		}
		return names.Look(ctx, tx)
	})
	if err != nil {
		return names.Noted{}, err
	}
	return names.LoadNoted(ctx, conn)
}

// takeNoted tells the index which ledgers there are, with what is in those that are new as copies, and only then who asks for names.
func (s *Sidecar) takeNoted(ctx context.Context, conn *pgx.Conn, now names.Noted) error {
	if err := tombstone.TakeLedgers(ctx, conn, s.own.Index, now.Ledgers); err != nil {
		return err
	}
	s.noted.set(now)
	return nil
}

func (n *noted) set(now names.Noted) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = now
}

// settleName sees to it that the index knows the ledger of a table under a name. It asks in the session of the decoder, which waits for no applier.
func (s *Sidecar) settleName(ctx context.Context, table uint32, name wal.RelationName) error {
	if table == 0 || s.noted.knows(table, name) {
		return nil
	}
	s.noted.look.Lock()
	defer s.noted.look.Unlock()
	if s.noted.knows(table, name) {
		return nil
	}
	return s.catalog.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		if err := s.lookAndLoad(ctx, c); err != nil || s.noted.knows(table, name) {
			return err
		}
		now, err := names.LoadNoted(ctx, c)
		if err != nil {
			return err
		}
		if err := now.Meets(ctx, c, table, name); err != nil {
			return err
		}
		return s.takeNoted(ctx, c, now)
	})
}
