package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that a peer sends and this region does not select is left out, rows, copies and all. It may be selected here later: it was
// excluded for a while, or is new and was configured in one region after the other. Nothing that the peer sends then brings what was left
// out. So a region remembers which tables it has left changes out of, and asks their origins for the rows when it selects them.

// verbCopy asks a region for copies of tables.
const verbCopy = "copy"

const (
	takeInWait  = 2 * time.Second
	takeInPause = 3 * time.Second
)

// copyBody is the body of such a question, and of its answer: the tables that are copied, or that have none to copy now, and will be
// copied when they are published. All stands for every table. Of is when the asker's term began: in a term each table is asked for until
// the answer has come, so a question that comes again, word for word, is one of which the answer was lost.
type copyBody struct {
	Of     int64              `json:"of,omitempty"` // nanoseconds
	Tables []wal.RelationName `json:"tables,omitempty"`
	All    bool               `json:"all,omitempty"`
}

// maxTakeIn bounds a question.
const maxTakeIn = 2000

// lacking is which tables of an origin are selected here, and have had changes left out before.
type lacking struct {
	mu     sync.Mutex
	tables []wal.RelationName
}

func (l *lacking) list() []wal.RelationName {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tables)
}

func (l *lacking) set(tables []wal.RelationName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables = tables
}

// granted remembers the newest question of each peer for which copies were asked for. The zero value is ready.
type granted struct {
	mu sync.Mutex
	of map[string][sha256.Size]byte
}

func (g *granted) is(asker string, question []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum, ok := g.of[asker]
	return ok && sum == sha256.Sum256(question)
}

func (g *granted) note(asker string, question []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of == nil {
		g.of = map[string][sha256.Size]byte{}
	}
	g.of[asker] = sha256.Sum256(question)
}

func (g *granted) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of = nil
}

// loadLacking begins a term with what was left out before it.
func (s *Sidecar) loadLacking(ctx context.Context, conn *pgx.Conn) error {
	for _, in := range s.in {
		out, err := quarantine.LeftOut(ctx, conn, in.origin)
		if err != nil {
			return err
		}
		in.lacks.set(slices.DeleteFunc(out, func(n wal.RelationName) bool {
			if quarantine.IsUnnamed(n) {
				return n == quarantine.UnnamedUnder(s.cfg.Selection()) // nothing is selected that was not then
			}
			return !s.cfg.Selected(n.Schema, n.Name)
		}))
	}
	s.takeInDue, s.takeInOf = time.Time{}, time.Now().UnixNano()
	s.granted.forget()
	return nil
}

// takeIn asks origins for the rows of tables that are selected here again. One that is away, or does not know the question, is asked
// again later.
func (s *Sidecar) takeIn(ctx context.Context) {
	if !s.cfg.Applies() || time.Now().Before(s.takeInDue) {
		return
	}
	began := time.Now()
	var absent []wal.RelationName
	for _, in := range s.in {
		lacks := in.lacks.list()
		if len(lacks) > 0 && absent == nil {
			err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
				absent, err = tablecopy.LookDue(ctx, c)
				return err
			})
			if err != nil {
				s.log.Debug("ask for rows of tables that were left out", "reason", publicMessage(err))
				return
			}
		}
		if lacks = s.lookedThrough(lacks, absent); len(lacks) == 0 || !s.reachable(in.origin) || s.silent(in.origin) {
			continue
		}
		if err := s.askCopies(ctx, in, lacks); err != nil && ctx.Err() == nil {
			s.log.Debug("ask for rows of tables that were left out", "origin", in.origin, "reason", publicMessage(err))
		}
	}
	// An origin that lets its answer wait holds up upkeep for a small part of the time.
	s.takeInDue = time.Now().Add(max(takeInPause, 19*time.Since(began)))
}

// lookedThrough are the tables that an origin may copy to here. Of those whose own changes were left out as well, the rows have to get their times first:
// the copy would take them for as old as what they have replaced.
func (s *Sidecar) lookedThrough(lacks, absent []wal.RelationName) []wal.RelationName {
	if !s.cfg.Publishes() {
		return lacks // nobody looks them through
	}
	some := slices.ContainsFunc(absent, func(n wal.RelationName) bool { return s.cfg.Selected(n.Schema, n.Name) })
	return slices.DeleteFunc(slices.Clone(lacks), func(n wal.RelationName) bool {
		return slices.Contains(absent, n) || some && quarantine.IsUnnamed(n)
	})
}

// askCopies asks one origin, and notes which tables it takes in hand.
func (s *Sidecar) askCopies(ctx context.Context, in *inboundState, lacks []wal.RelationName) error {
	q := copyBody{Of: s.takeInOf, Tables: slices.DeleteFunc(slices.Clone(lacks), quarantine.IsUnnamed)}
	q.All = len(q.Tables) < len(lacks)
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, takeInWait)
	defer cancel()
	data, err := s.broker.Request(wait, in.origin, verbCopy, body)
	if err != nil {
		return err
	}
	var said copyBody
	if err := json.Unmarshal(data, &said); err != nil {
		return errors.New("the answer cannot be read")
	}
	done := slices.DeleteFunc(slices.Clone(lacks), func(n wal.RelationName) bool { return !said.All && !slices.Contains(said.Tables, n) })
	if len(done) == 0 {
		return nil
	}
	s.log.Info("tables that were left out before are copied anew by their origin", "origin", in.origin, "tables", len(done))
	in.lacks.set(slices.DeleteFunc(in.lacks.list(), func(n wal.RelationName) bool { return slices.Contains(done, n) }))
	// Where that fails, the next term asks once more: a copy too many does no harm.
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return quarantine.TakenIn(ctx, c, in.origin, done) })
}

// sayCopies answers a peer that selects tables which it has left out before. Those that are not published are copied when they are.
func (s *Sidecar) sayCopies(ctx context.Context, asker string, data []byte) ([]byte, error) {
	var req copyBody
	if err := json.Unmarshal(data, &req); err != nil || len(req.Tables) > maxTakeIn {
		return nil, errors.New("the request cannot be read")
	}
	if !req.All && len(req.Tables) == 0 {
		return json.Marshal(req)
	}
	if s.granted.is(asker, data) {
		return json.Marshal(req) // the copies would begin again each time
	}
	if !s.mayCopy(asker) {
		return nil, errors.New("not now: this was asked for often")
	}
	n := 0
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		n, err = s.copyFor(ctx, c, req)
		return err
	})
	if err != nil {
		s.log.Debug("copies were asked for", "peer", asker, "reason", publicMessage(err))
		return nil, errors.New("the copies cannot be asked for now")
	}
	if req.Of != 0 {
		s.granted.note(asker, data)
	}
	s.log.Info("a peer selects tables that it has left out before; they are copied for it", "peer", asker, "tables", n)
	return json.Marshal(req)
}

// copyFor asks for copies of tables that are published and not left out here.
func (s *Sidecar) copyFor(ctx context.Context, c *pgx.Conn, req copyBody) (int, error) {
	pub, err := pg.LoadPublication(ctx, c, s.cfg.Postgres.Publication)
	if err != nil || pub == nil {
		return 0, err
	}
	var tables []wal.RelationName
	for _, t := range pub.Tables {
		if (req.All || slices.Contains(req.Tables, t.Name)) && !s.cfg.Excluded(t.Name.Schema, t.Name.Name) {
			tables = append(tables, t.Name)
		}
	}
	if len(tables) == 0 {
		return 0, nil
	}
	if _, err := c.Exec(ctx, tablecopy.RequestSQL(tables)); err != nil {
		return 0, fmt.Errorf("request copy: %w", err)
	}
	s.asksForCopies()
	return len(tables), nil
}
