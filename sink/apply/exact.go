package apply

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Tables with replica identity FULL and no key: rows can be told apart only by their whole
// contents. Each change is applied by itself, in order, to exactly one row whose columns all
// equal the old image. There is no stamp and no tombstone for such rows; a change whose row
// is not here is written to the audit log and left out.

func (a *Applier) exact(ctx context.Context, g *batch.Group, t *target, fx *effects) error {
	for i := range g.Exact {
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
			why := reason{"P0002", "the row is not here; changes of this table wait"}
			if a.retrying {
				return &stillParked{why}
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
	var cols []int
	for _, c := range t.insert {
		if ch.Old[c].Kind != wal.Unchanged {
			cols = append(cols, c)
		}
	}
	params := make([]statement.Param, len(cols))
	args := make([][]byte, len(cols))
	for n, c := range cols {
		params[n] = t.params[c]
		args[n] = ch.Old[c].Bytes
		if ch.Old[c].Kind == wal.Null {
			args[n] = nil
		} else if args[n] == nil {
			args[n] = []byte{}
		}
	}
	sel := statement.Exact(t.table, params)
	var sql string
	if ch.Op == wal.Delete {
		sql = "delete from " + t.table + " where ctid = (" + sel + ") returning 1"
	} else {
		var set []string
		for _, c := range t.insert {
			v := ch.New[c]
			if v.Kind == wal.Unchanged {
				continue
			}
			set = append(set, statement.Quote(t.params[c].Name)+" = ($"+strconv.Itoa(len(args)+1)+"::text)::"+t.params[c].Type)
			if v.Kind == wal.Null {
				args = append(args, nil)
			} else {
				args = append(args, nonNil(v.Bytes))
			}
		}
		if len(set) == 0 {
			return true, nil
		}
		sql = "update " + t.table + " set " + strings.Join(set, ", ") + " where ctid = (" + sel + ") returning 1"
	}
	n := 0
	if err := a.query(ctx, sql, args, []int16{0}, func([][]byte) { n++ }); err != nil {
		return false, fmt.Errorf("apply %s of %s: %w", ch.Op, ch.Relation, err)
	}
	return n == 1, nil
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (a *Applier) exactInsert(ctx context.Context, t *target, row wal.Tuple) error {
	var names, exprs []string
	var args [][]byte
	for _, c := range t.insert {
		names = append(names, statement.Quote(t.params[c].Name))
		exprs = append(exprs, "($"+strconv.Itoa(len(args)+1)+"::text)::"+t.params[c].Type)
		if row[c].Kind == wal.Null {
			args = append(args, nil)
		} else {
			args = append(args, nonNil(row[c].Bytes))
		}
	}
	over := ""
	if t.shape.Override {
		over = " overriding system value"
	}
	sql := "insert into " + t.table + " (" + strings.Join(names, ", ") + ")" + over + " values (" + strings.Join(exprs, ", ") + ") returning 1"
	return a.query(ctx, sql, args, []int16{0}, func([][]byte) {})
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
