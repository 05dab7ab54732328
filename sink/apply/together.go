package apply

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Where foreign keys are enforced for applied rows, rows that refer to each other in a circle may
// all wait: each by itself fails for want of the others. PostgreSQL checks a foreign key behind the
// whole statement, also one that need not be deferrable; so they go in by one statement together.

// togetherPool is how many parked changes are searched for a circle, and togetherMax how many of
// them go in together at most.
const (
	togetherPool = 2000
	togetherMax  = 200
)

// together gathers the statements of an attempt, to be run as one.
type together struct {
	sqls []string
	args [][][]byte
	of   []fastStmt
}

// gather takes a statement instead of queueing it. The arguments are copied: their buffers are used
// again.
func (x *together) gather(sql string, args [][]byte) {
	mine := make([][]byte, len(args))
	for i := range args {
		mine[i] = bytes.Clone(args[i])
	}
	x.sqls, x.args = append(x.sqls, sql), append(x.args, mine)
}

// runTogether runs what was gathered, and makes sure that every row was written as it was meant.
func (a *Applier) runTogether(ctx context.Context) error {
	x := a.together
	a.together = nil
	if len(x.sqls) == 0 {
		return nil
	}
	var args [][]byte
	for _, some := range x.args {
		args = append(args, some...)
	}
	formats := slices.Repeat([]int16{1}, len(args))
	counts := make([]int, len(x.sqls))
	r := a.conn.PgConn().ExecParams(ctx, statement.Together(x.sqls), args, nil, formats, []int16{1})
	for r.NextRow() {
		for i, v := range r.Values() {
			counts[i] = int(int8Of(v))
		}
	}
	if _, err := r.Close(); err != nil {
		return fmt.Errorf("apply rows that refer to each other: %w", err)
	}
	for i, st := range x.of {
		if counts[i] != len(st.runs) {
			return errRace
		}
		if st.op == wal.Delete {
			continue
		}
		states := make([]known, len(st.runs))
		if err := a.lockRows(ctx, st.group, st.t, st.runs, states); err != nil {
			return err
		}
		for n, i := range st.runs {
			want, row := st.group.Runs[i].Stamp, states[n].row
			if row == nil {
				return errRace
			}
			got, err := conflict.StampOf(st.t.cols, st.group.Rel, row, want.UpdatedAt)
			if err != nil || got.Version != want.Version || got.UpdatedAt != want.UpdatedAt {
				return &stampError{st.group.Rel.Ref(), "stamp"}
			}
		}
	}
	return nil
}

// tryTogether tries a change that a foreign key refuses, as refused says, with the parked changes
// that it refers to.
func (r *Retrier) tryTogether(ctx context.Context, k parked.Queue, id int64, wanted bool, refused error) (int, error) {
	ids, err := r.circle(ctx, k, id)
	if err != nil {
		return 0, err
	}
	if len(ids) < 2 {
		return 0, refused
	}
	r.ids -= 2
	r.together = true
	defer func() { r.together = false }()
	n, err := r.try(ctx, ids, wanted)
	if parkable(err) && !r.a.conn.IsClosed() {
		err = refused
	}
	return n, err
}

// circle returns, for a change that a foreign key refuses, the parked changes that have to go in
// with it: those that it refers to, and what these refer to; for a delete those that refer to it.
// The change alone is in the answer when there are none.
func (r *Retrier) circle(ctx context.Context, k parked.Queue, id int64) ([]int64, error) {
	pool, err := parked.OfState(ctx, r.a.conn, k.Origin, k.State, togetherPool)
	if err != nil {
		return nil, err
	}
	byTable := map[wal.RelationName][]*parked.Change{}
	var todo []*parked.Change
	for _, c := range pool {
		name := c.Waiting.Relation.Ref()
		byTable[name] = append(byTable[name], c)
		if c.ID == id {
			todo = append(todo, c)
		}
	}
	ids, in := []int64{id}, map[int64]bool{id: true}
	keys := map[wal.RelationName][]foreignKey{}
	for len(todo) > 0 && len(ids) < togetherMax {
		c := todo[0]
		todo = todo[1:]
		name := c.Waiting.Relation.Ref()
		if _, known := keys[name]; !known {
			if keys[name], err = foreignKeys(ctx, r.a.conn, name); err != nil {
				return nil, err
			}
		}
		for _, f := range keys[name] {
			for _, d := range byTable[f.other] {
				if !in[d.ID] && f.joins(&c.Waiting, &d.Waiting) {
					in[d.ID] = true
					ids, todo = append(ids, d.ID), append(todo, d)
				}
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// foreignKey joins a table with another one.
type foreignKey struct {
	other  wal.RelationName
	out    bool     // the table refers to the other one
	mine   []string // columns of the table
	theirs []string
}

const foreignKeysSQL = `select n.nspname::text, c.relname::text, k.conrelid = t.oid,
  array(select a.attname::text from pg_catalog.unnest(case when k.conrelid = t.oid then k.conkey else k.confkey end) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = u.num order by u.ord),
  array(select a.attname::text from pg_catalog.unnest(case when k.conrelid = t.oid then k.confkey else k.conkey end) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = u.num order by u.ord)
from pg_catalog.pg_class t join pg_catalog.pg_namespace s on s.oid = t.relnamespace
join pg_catalog.pg_constraint k on k.contype = 'f' and t.oid in (k.conrelid, k.confrelid) and k.conparentid = 0
join pg_catalog.pg_class c on c.oid = case when k.conrelid = t.oid then k.confrelid else k.conrelid end
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where s.nspname = $1 and t.relname = $2 order by k.oid`

func foreignKeys(ctx context.Context, q querier, name wal.RelationName) ([]foreignKey, error) {
	rows, err := q.Query(ctx, foreignKeysSQL, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys of %s: %w", name, err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f foreignKey, err error) {
		err = row.Scan(&f.other.Schema, &f.other.Name, &f.out, &f.mine, &f.theirs)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read foreign keys of %s: %w", name, err)
	}
	return keys, nil
}

// joins reports whether mine cannot go in without other: a row and the one that it refers to, or
// the deletes of a row and of one that refers to it.
func (f foreignKey) joins(mine, other *conflict.Waiting) bool {
	gone := mine.Op == wal.Delete
	if gone != (other.Op == wal.Delete) || f.out == gone {
		return false
	}
	for i := range f.mine {
		x, ok := screenValue(mine, f.mine[i])
		y, okay := screenValue(other, f.theirs[i])
		if !ok || !okay || x == nil || y == nil || *x != *y {
			return false
		}
	}
	return len(f.mine) > 0
}
