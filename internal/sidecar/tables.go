package sidecar

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that is not set up, or that cannot be replicated as it is, stops none of the others. The status names it, with what
// to do. What comes for it from peers goes in where the table takes it just as it came, and is parked where it does not.

// How often tables are looked at: where some are not well, somebody waits for the answer.
const (
	tablesPause     = 30 * time.Second
	tablesPauseHeld = 3 * time.Second
	tablesShare     = 50 // looking takes at most one part in so many of the time
)

// watchTables looks at the tables now and then, until ctx ends, in a session of its own each time: where there are thousands of tables
// a look takes seconds, and nothing waits for it.
func (s *Sidecar) watchTables(ctx context.Context) error {
	for {
		began := time.Now()
		rest := tablesPause
		troubled, err := s.lookAtTables(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("look at tables", "reason", publicMessage(err))
		}
		if err != nil || troubled {
			rest = tablesPauseHeld
		}
		if err := pause.For(ctx, max(rest, tablesShare*time.Since(began))); err != nil {
			return err
		}
	}
}

// lookAtTables finds tables that are not replicated as they should be, and those that are again. It reports whether there are any.
func (s *Sidecar) lookAtTables(ctx context.Context) (bool, error) {
	s.askRules(ctx)
	conn, err := s.connect(ctx, "tables")
	if err != nil {
		return false, err
	}
	defer closeConn(conn)
	tables, err := preflight.Tables(ctx, conn, s.cfg, s.rules)
	if err != nil {
		return false, err
	}
	if err := s.dueAlike(ctx, conn, tables); err != nil {
		return false, err
	}
	s.noteTables(tables)
	return len(tables) > 0, nil
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

// verbRules asks a region for what decides conflicts there.
const verbRules = "rules"

// sayRules answers a peer.
func (s *Sidecar) sayRules(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(preflight.RulesOf(s.cfg))
}

// rulesWait is how long a peer's answer is waited for. What it said last holds while it says nothing.
const rulesWait = 2 * time.Second

// askRules asks the peers that can be reached. One that does not know the question has no rules that are known.
func (s *Sidecar) askRules(ctx context.Context) {
	for _, p := range s.cfg.PeerNames() {
		if !s.reachable(p) {
			continue
		}
		data, err := s.requestRules(ctx, p)
		var r preflight.Rules
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			s.log.Debug("ask for rules", "peer", p, "reason", publicMessage(err))
			continue
		}
		if s.rules == nil {
			s.rules = map[string]preflight.Rules{}
		}
		s.rules[p] = r
	}
}

func (s *Sidecar) requestRules(ctx context.Context, peer string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, rulesWait)
	defer cancel()
	return s.broker.Request(ctx, peer, verbRules, nil)
}

// dueAlike notes that tables whose conflicts are decided otherwise elsewhere are to be copied when they are not (notYet).
func (s *Sidecar) dueAlike(ctx context.Context, c *pgx.Conn, found preflight.Findings) error {
	s.mu.Lock()
	known := s.tables
	s.mu.Unlock()
	var tables []wal.RelationName
	for _, f := range found {
		said := slices.ContainsFunc(known, func(t status.Table) bool { return t.Table == f.Table && t.Code == f.Code })
		if f.Code == preflight.StampsDiffer && !said {
			tables = append(tables, f.Relation)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	if err := names.SetDue(ctx, c, tables); err != nil {
		return err
	}
	s.due.Add(int64(len(tables)))
	return nil
}

// differs reports whether another region decides conflicts of a table otherwise, as far as it was heard of.
func (s *Sidecar) differs(n wal.RelationName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.tables, func(t status.Table) bool { return t.Code == preflight.StampsDiffer && t.Table == n.String() })
}
