package apply

import (
	"context"
	"errors"
	"sync"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A column that both regions drop may still be in changes that are under way, and they are parked
// for want of it. When a later change of the table comes without the column, its origin has dropped
// it as well; then its values are nobody's loss, and the parked changes go in without them.

// shapes knows the newest description of each table that an origin's changes came with. Safe for
// concurrent use.
type shapes struct {
	mu     sync.Mutex
	newest map[wal.RelationName]*wal.Relation
}

// maxShapes bounds the memory; what is forgotten is known again with the next change.
const maxShapes = 20000

func (s *shapes) see(rel *wal.Relation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil || len(s.newest) > maxShapes {
		s.newest = map[wal.RelationName]*wal.Relation{}
	}
	s.newest[rel.Ref()] = rel
}

func (s *shapes) of(name wal.RelationName) *wal.Relation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest[name]
}

// fit finds the table of a parked change. Columns that are missing here, and that the origin does
// not have any more either, are taken out of the change.
func (r *Retrier) fit(ctx context.Context, c *parked.Change) (*target, error) {
	ch := &c.Transaction.Changes[0]
	ch.Relation = r.intern(ch.Relation)
	t, err := r.a.target(ctx, ch.Relation)
	var se *schemaError
	if !errors.As(err, &se) || se.code != "42703" {
		return t, err
	}
	now := r.a.cfg.Suspects.shapes.of(ch.Relation.Ref())
	if now == nil {
		return nil, err
	}
	rel, kept := without(ch.Relation, now)
	if rel == nil {
		return nil, err
	}
	t, terr := r.a.target(ctx, r.intern(rel))
	if terr != nil {
		return nil, err
	}
	ch.Relation, ch.New, ch.Old = r.intern(rel), only(ch.New, kept), only(ch.Old, kept)
	return t, nil
}

// without describes a table without the columns that now lacks, and returns the places of the
// others. It returns nil when that would change the key, or nothing.
func without(rel, now *wal.Relation) (*wal.Relation, []int) {
	out := *rel
	out.Columns, out.PrimaryKey = nil, nil
	var kept []int
	at := make([]int, len(rel.Columns))
	for i := range rel.Columns {
		at[i] = -1
		if now.Column(rel.Columns[i].Name) >= 0 {
			at[i] = len(kept)
			kept, out.Columns = append(kept, i), append(out.Columns, rel.Columns[i])
		}
	}
	for _, k := range rel.KeyColumns() {
		if at[k] < 0 {
			return nil, nil
		}
	}
	for _, k := range rel.PrimaryKey {
		out.PrimaryKey = append(out.PrimaryKey, at[k])
	}
	if len(kept) == len(rel.Columns) {
		return nil, nil
	}
	return &out, kept
}

func only(row wal.Tuple, places []int) wal.Tuple {
	if row == nil {
		return nil
	}
	out := make(wal.Tuple, len(places))
	for n, i := range places {
		out[n] = row[i]
	}
	return out
}
