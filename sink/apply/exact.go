package apply

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Tables with replica identity FULL and no key: rows can be told apart only by their whole
// contents. Each update and delete is applied by itself, in order, to exactly one row whose columns
// all equal the old image; inserts that follow each other go in together. There is no stamp and no tombstone for such rows; a change whose row
// is not here is written to the audit log and left out.

func (a *Applier) exact(ctx context.Context, g *batch.Group, t *target, fx *effects) error {
	for i := 0; i < len(g.Exact); i++ {
		if rows := insertsOf(t, g.Exact[i:]); len(rows) > 1 {
			if err := a.exactInserts(ctx, t, rows); err != nil {
				return fmt.Errorf("apply inserts of %s: %w", g.Rel, err)
			}
			fx.rows += uint64(len(rows))
			i += len(rows) - 1
			continue
		}
		x := &g.Exact[i]
		ok, err := a.exactChange(ctx, t, x.Change)
		if err != nil {
			return err
		}
		if ok {
			fx.rows++
			continue
		}
		if waits, err := a.waitsBehind(ctx, g); err != nil {
			return err
		} else if waits {
			// The row may be one of those that wait.
			why := reason{stateLacks, "the row is not here; changes of this table wait"}
			if a.retrying {
				return &stillParked{why: why}
			}
			c := a.parkedExact(g, x, why)
			if err := a.writeParked(ctx, g.Rel, []parked.Change{c}, fx); err != nil {
				return err
			}
			continue
		}
		row := x.Change.New
		if row == nil {
			row = x.Change.Old
		}
		yours := wal.Entry{Known: true, Alive: x.Change.New != nil, Stamp: x.Change.Stamp, Row: row}
		a.conflict(fx, g.Rel, a.exactRecord(g, t, x), yours, wal.Entry{})
		if err := a.spillLarge(ctx, fx); err != nil {
			return err
		}
	}
	return nil
}

// waitsBehind reports whether changes of a table without a key are parked that come before
// the one in hand.
func (a *Applier) waitsBehind(ctx context.Context, g *batch.Group) (bool, error) {
	if !a.cfg.Parked.Any(g.Rel.Ref()) {
		return false, nil
	}
	before := a.retryID
	if before == 0 {
		before = math.MaxInt64
	}
	return parked.Any(ctx, a.conn, g.Rel.Ref(), a.cfg.Origin, before)
}

func (a *Applier) exactChange(ctx context.Context, t *target, ch *wal.Change) (bool, error) {
	if ch.Op == wal.Insert {
		return true, a.exactInsert(ctx, t, ch.New)
	}
	if ch.Old == nil {
		return false, nil // which row is meant nobody can tell
	}
	var check []int
	var old []statement.Param
	var args [][]byte
	for _, c := range t.insert {
		if ch.Old[c].Kind != wal.Unchanged {
			old = append(old, t.params[c])
			args = append(args, textArg(ch.Old[c]))
		}
	}
	sql := ""
	if ch.Op == wal.Delete {
		sql = statement.ExactDelete(t.shape, old)
	} else {
		var set []statement.Param
		for _, c := range t.update {
			if ch.New[c].Kind != wal.Unchanged {
				set = append(set, t.params[c])
				args = append(args, textArg(ch.New[c]))
			}
		}
		if len(set) == 0 {
			return true, nil
		}
		check = slices.DeleteFunc(slices.Clone(t.check), func(c int) bool {
			return ch.New[c].Kind == wal.Unchanged || !slices.Contains(t.update, c) && !slices.Contains(t.made, c)
		})
		s := t.shape
		s.Check, s.Place = t.names(check), t.schema.after
		sql = statement.ExactUpdate(s, old, set)
	}
	n, err := a.exactQuery(ctx, t, sql, args, check, ch.New)
	if err != nil {
		return false, fmt.Errorf("apply %s of %s: %w", ch.Op, ch.Relation, err)
	}
	return n == 1, nil
}

// exactQuery runs a statement, counts the rows that it returns, and holds the checked columns of
// each against the row that came.
func (a *Applier) exactQuery(ctx context.Context, t *target, sql string, args [][]byte, check []int, row wal.Tuple) (n int, err error) {
	var differs error
	var place [][]byte
	returned := len(check)
	if t.schema.after && row != nil {
		returned += 2
	}
	err = a.query(ctx, sql, args, make([]int16, max(1, returned)), func(stored [][]byte) {
		n++
		for _, v := range stored[len(check):returned] {
			place = append(place, bytes.Clone(v))
		}
		for k, c := range check {
			if !sameValue(t.spelling[c], row[c], stored[k]) && differs == nil {
				differs = &valueError{name: t.rel.Ref(), column: t.params[c].Name}
			}
		}
	})
	if err == nil && t.schema.disturbs {
		b := pipeline{fence: -1}
		if err = a.putBack(ctx, &b, t); err == nil {
			err = a.run(ctx, &b, nil, nil, nil)
		}
	}
	if err == nil {
		err = differs
	}
	if err == nil && len(place) == 2 {
		err = a.stayedAt(ctx, t, place)
	}
	return n, err
}

// textArg is a value as a text parameter.
func textArg(v wal.Value) []byte {
	switch {
	case v.Kind == wal.Null:
		return nil
	case v.Bytes == nil:
		return []byte{}
	}
	return v.Bytes
}

func (a *Applier) exactInsert(ctx context.Context, t *target, row wal.Tuple) error {
	params := make([]statement.Param, len(t.insert))
	args := make([][]byte, len(t.insert))
	for n, c := range t.insert {
		params[n], args[n] = t.params[c], textArg(row[c])
	}
	s := t.shape
	s.Check, s.Place = t.names(t.check), t.schema.after
	_, err := a.exactQuery(ctx, t, statement.ExactInsert(s, params), args, t.check, row)
	return err
}

// maxInserts is how many rows go in with one statement.
const maxInserts = 4000

// insertsOf returns the inserts that a run of changes begins with, where nothing has to be looked at
// behind each of them.
func insertsOf(t *target, run []batch.Exact) (rows []wal.Tuple) {
	if len(t.check) > 0 || t.schema.after || t.schema.disturbs || len(t.insert) == 0 {
		return nil
	}
	for i := range run {
		ch := run[i].Change
		if ch.Op != wal.Insert || len(rows) == maxInserts || slices.ContainsFunc(t.insert, func(c int) bool { return ch.New[c].Kind != wal.Text && ch.New[c].Kind != wal.Null }) {
			break
		}
		rows = append(rows, ch.New)
	}
	return rows
}

// exactInserts inserts rows in their order with one statement.
func (a *Applier) exactInserts(ctx context.Context, t *target, rows []wal.Tuple) error {
	s := t.shape
	s.Values, s.Plain = t.paramsOf(t.insert, func(int) bool { return false }), true
	s.Version, s.UpdatedAt, s.Check = "", "", nil
	args := make([][]byte, len(t.insert))
	for n, c := range t.insert {
		arr := a.array(s.Values[n], t, c)
		for _, row := range rows {
			arr.value(row[c])
		}
		args[n] = arr.param()
	}
	return a.query(ctx, statement.Insert(s), args, []int16{1}, func([][]byte) {})
}

func (a *Applier) exactRecord(g *batch.Group, t *target, x *batch.Exact) audit.Record {
	typ := conflict.UpdateMissing
	if x.Change.Op == wal.Delete {
		typ = conflict.DeleteMissing
	}
	old, _ := conflict.Content(g.Rel, x.Change.Old)
	remote := conflict.Side{Known: true, Alive: true, Stamp: x.Change.Stamp, Content: old}
	rec := a.plainRecord(g.Rel, typ, conflict.Missing, x.Tx, remote)
	rec.RemoteRow = a.json(g.Rel, x.Change.New)
	return rec
}
