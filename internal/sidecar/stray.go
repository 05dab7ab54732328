package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Tables pass their names on in a row (log rotation), and one region does so before the other one. What is written to the new table, or to that which has the name still,
// goes by the name in between: into yesterday's table of the region that has not followed, and into the new one of the region that was first. When both have done it,
// the new tables lack rows of each other. So the region that has followed asks the other one for a copy of its new table, and that which was first copies its own.

// strays is for which tables that was done in this term. It belongs to the goroutine of upkeep.
type strays map[stray]bool

// stray is a table of an origin whose changes went into another table here.
type stray struct {
	originTable
	here uint32 // the table that the name leads to
}

// settleStrays asks for these copies. An origin that is away, or does not know the question, is asked again later. What was asked for is not again, as
// long as the name leads to the same table.
func (s *Sidecar) settleStrays(ctx context.Context) {
	if !s.cfg.Applies() || time.Now().Before(s.straysDue) {
		return
	}
	began := time.Now()
	if s.strays == nil {
		s.strays = strays{}
	}
	for _, in := range s.in {
		if err := s.askStrays(ctx, in.origin); err != nil && ctx.Err() == nil {
			s.log.Debug("ask for rows that went into another table by its name", "origin", in.origin, "reason", publicMessage(err))
		}
		if err := s.copyReturned(ctx, in.origin); err != nil && ctx.Err() == nil {
			s.log.Debug("copy a table that has rows of another one by its name", "origin", in.origin, "reason", publicMessage(err))
		}
	}
	// An origin that lets its answer wait holds up upkeep for a small part of the time.
	s.straysDue = time.Now().Add(max(takeInPause, 19*time.Since(began)))
}

// askStrays asks an origin for copies of tables whose rows went into another table here.
func (s *Sidecar) askStrays(ctx context.Context, origin string) error {
	var tables []wal.RelationName
	var which []stray
	for _, x := range s.suspectsOf(origin).Strays() {
		of := stray{originTable{origin, x.Theirs}, s.noted.table(x.Called)}
		if of.here != 0 && of.here != x.Here && !s.strays[of] && s.cfg.Selected(x.Called.Schema, x.Called.Name) && len(tables) < maxTakeIn {
			tables, which = append(tables, x.Called), append(which, of)
		}
	}
	if len(tables) == 0 || !s.reachable(origin) || s.silent(origin) {
		return nil
	}
	body, err := json.Marshal(copyBody{Of: time.Now().UnixNano(), Tables: tables})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, takeInWait)
	defer cancel()
	data, err := s.broker.Request(wait, origin, verbCopy, body)
	if err != nil {
		return err
	}
	var said copyBody
	if err := json.Unmarshal(data, &said); err != nil {
		return errors.New("the answer cannot be read")
	}
	for _, of := range which {
		s.strays[of] = true
	}
	s.log.Info("tables have passed their names on, in another region first; it copies what went into other tables here", "origin", origin, "tables", len(tables))
	return nil
}

// copyReturned asks for copies of own tables that have rows of another one of the origin.
func (s *Sidecar) copyReturned(ctx context.Context, origin string) error {
	var tables []wal.RelationName
	var which []stray
	for theirs, here := range s.suspectsOf(origin).Returned() {
		of := stray{originTable{origin, theirs}, here}
		if n, there := s.noted.name(here); there && !s.strays[of] && s.cfg.Publishes() && s.cfg.Selected(n.Schema, n.Name) {
			tables, which = append(tables, n), append(which, of)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	var published []wal.RelationName
	var done []stray
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		published, done = nil, nil
		for i, n := range tables {
			is, err := tablecopy.Published(ctx, c, s.cfg.Postgres.Publication, n)
			if err != nil {
				return err
			}
			if is { // any other is looked at again
				published, done = append(published, n), append(done, which[i])
			}
		}
		if len(published) == 0 {
			return nil
		}
		if _, err := c.Exec(ctx, tablecopy.RequestSQL(published)); err != nil {
			return fmt.Errorf("request copy: %w", err)
		}
		return nil
	})
	if err != nil || len(done) == 0 {
		return err
	}
	for _, of := range done {
		s.strays[of] = true
	}
	s.log.Info("tables have passed their names on, here first; the new ones are copied, which have got rows by their names", "origin", origin, "tables", len(done))
	s.asksForCopies()
	return nil
}

// table is the table that was noted under a name; 0 for none.
func (n *noted) table(name wal.RelationName) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now.Table(name)
}

// name is the name under which a table was noted.
func (n *noted) name(table uint32) (wal.RelationName, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now.Name(table)
}
