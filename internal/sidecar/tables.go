package sidecar

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// A table that is not set up, or that cannot be replicated as it is, stops none of the others. The status names it, with what
// to do. What comes for it from peers goes in where the table takes it just as it came, and is parked where it does not.

// How often tables are looked at: where some are not well, somebody waits for the answer.
const (
	tablesPause     = 30 * time.Second
	tablesPauseHeld = 3 * time.Second
	tablesShare     = 50 // looking takes at most one part in so many of the time,
	tablesShareHeld = 10 // and in so many where somebody waits
)

// watchTables looks at the tables now and then, until ctx ends, in a session of its own each time: where there are thousands of tables
// a look takes seconds, and nothing waits for it.
func (s *Sidecar) watchTables(ctx context.Context) error {
	met := map[string]bool{} // peers that were asked for their rules
	for {
		asked := s.askRules(ctx) // beside began: who lets an answer wait does not make the looks seldom
		for _, p := range asked {
			met[p] = true
		}
		began := time.Now()
		rest, share := tablesPause, time.Duration(tablesShare)
		troubled, err := s.lookAtTables(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("look at tables", "reason", publicMessage(err))
		}
		if err == nil {
			s.rules.note(asked)
		}
		if err != nil || troubled {
			rest, share = tablesPauseHeld, tablesShareHeld
		}
		for end := time.Now().Add(max(rest, share*time.Since(began))); time.Now().Before(end); {
			if err := pause.For(ctx, min(time.Second, time.Until(end))); err != nil {
				return err
			}
			if slices.ContainsFunc(s.cfg.PeerNames(), func(p string) bool { return !met[p] && s.reachable(p) }) {
				break // it is in reach for the first time
			}
		}
	}
}

// lookAtTables finds tables that are not replicated as they should be, and those that are again. It reports whether there are any that
// may be well again while it runs.
func (s *Sidecar) lookAtTables(ctx context.Context) (bool, error) {
	conn, err := s.connect(ctx, "tables")
	if err != nil {
		return false, err
	}
	defer closeConn(conn)
	tables, err := preflight.Tables(ctx, conn, s.cfg, s.rules.told)
	if err != nil {
		return false, err
	}
	s.noteTables(tables)
	troubled := slices.ContainsFunc(tables, func(f preflight.Finding) bool { return f.Code != preflight.SelectionDiffers }) // that ends with a restart
	return troubled, s.dueAlike(ctx, conn, tables)
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
