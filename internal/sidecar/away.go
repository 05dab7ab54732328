package sidecar

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Rows of a table without stamp columns whose changes were left out count as old as those that they have replaced until the table is looked through (tablecopy.Absent). What
// a peer has of them must not be put over them before that. So it is not asked for its rows until then (takeIn), and where it copies them by itself, as it does when it
// has left the table out as well, the copy waits here.

// A copy waits for this long at most: it may be that what the look waits for waits for what comes behind the copy. After that none waits for awayRest.
const (
	awayWait = time.Minute
	awayRest = 10 * time.Minute
)

// awaitLook lets a copied part of a table wait while that is to be looked through here.
func (s *Sidecar) awaitLook(ctx context.Context, in *inboundState, d subscribe.Delivery) error {
	if d.Header.Kind != wire.Copy || !s.cfg.Publishes() {
		return nil
	}
	tables := map[wal.RelationName]bool{}
	for _, tx := range d.Packet.Transactions {
		for i := range tx.Changes {
			tables[tx.Changes[i].Relation.Ref()] = true
		}
	}
	for began, said := time.Now(), false; ; said = true {
		due, err := s.lookDue(ctx, tables)
		if err != nil || !due || time.Now().Before(in.lookRest) {
			return err
		}
		if time.Since(began) > awayWait {
			s.log.Warn("a peer's copy of a table is not held back any longer: rows whose changes were left out here are not looked for yet", "origin", in.origin)
			in.lookRest = time.Now().Add(awayRest)
			return nil
		}
		if !said {
			s.log.Info("a peer's copy of a table waits until rows whose changes were left out here have their times", "origin", in.origin)
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// lookDue reports whether one of the tables is about to be looked through.
func (s *Sidecar) lookDue(ctx context.Context, tables map[wal.RelationName]bool) (due bool, err error) {
	err = s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		all, err := tablecopy.LookDue(ctx, c)
		due = slices.ContainsFunc(all, func(n wal.RelationName) bool { return tables[n] && s.cfg.Selected(n.Schema, n.Name) })
		return err
	})
	return due, err
}
