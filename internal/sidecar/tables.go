package sidecar

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// A table that is not set up, or that cannot be replicated as it is, stops none of the others. The status names it, with what
// to do. What comes for it from peers goes in where the table takes it just as it came, and is parked where it does not.

// How often tables are looked at: where some are not well, somebody waits for the answer.
const (
	tablesPause     = 30 * time.Second
	tablesPauseHeld = 3 * time.Second
	tablesShare     = 50 // looking takes at most one part in so many of the time
)

// lookAtTables finds tables that are not replicated as they should be, and those that are again.
func (s *Sidecar) lookAtTables(ctx context.Context) error {
	if time.Now().Before(s.tablesDue) {
		return nil
	}
	began := time.Now()
	var tables preflight.Findings
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		tables, err = preflight.Tables(ctx, c, s.cfg)
		return err
	})
	rest := tablesPause
	if err != nil || len(tables) > 0 {
		rest = tablesPauseHeld
	}
	s.tablesDue = time.Now().Add(max(rest, tablesShare*time.Since(began)))
	if err == nil {
		s.noteTables(tables)
	}
	return err
}

// noteTables keeps what the status says of single tables, and logs what is new.
func (s *Sidecar) noteTables(findings preflight.Findings) {
	s.mu.Lock()
	was := s.tables
	s.mu.Unlock()
	var now []status.Table
	var fresh preflight.Findings
	for _, f := range findings {
		t := status.Table{Table: f.Table, Code: f.Code, Reason: f.What, Remedy: f.Remedy, Error: f.Severity == preflight.Error, Since: time.Now()}
		if i := slices.IndexFunc(was, t.Same); i >= 0 {
			t.Since = was[i].Since
		} else {
			fresh = append(fresh, f)
		}
		now = append(now, t)
	}
	for _, f := range fresh.Together("; pgwaltz check --all names them") {
		s.log.Warn("a table is not replicated as it should be", "code", f.Code, "what", f.What, "remedy", f.Remedy)
	}
	for _, t := range was {
		if !slices.ContainsFunc(now, t.Same) {
			s.log.Info("a table is as it should be again", "relation", t.Table, "code", t.Code)
		}
	}
	slices.SortStableFunc(now, func(a, b status.Table) int {
		switch {
		case a.Error && !b.Error:
			return -1
		case b.Error && !a.Error:
			return 1
		}
		return strings.Compare(a.Table, b.Table)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables = now
}
