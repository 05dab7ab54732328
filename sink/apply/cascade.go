package apply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Where foreign keys are enforced for applied rows (restorer triggers), a delete that is applied
// makes the server delete or change the rows that reference it, and so does an update of what they
// reference. The origin may never have seen those rows, and what the server does within an apply transaction is an echo, which nobody
// publishes: the regions would differ. So it is done before, in an ordinary transaction of this
// region. That one is decoded, stamped, published and merged like any write of the application,
// and the delete that follows has nothing left to cascade to.

// cascadeError asks for a cascade to be done by itself, outside of the apply transaction.
type cascadeError struct {
	rel  wal.RelationName
	sql  string
	args [][]byte
}

func (e *cascadeError) Error() string {
	return fmt.Sprintf("apply delete of %s: rows that reference it go first", e.rel)
}

// maxCascades is how often in a row one cascade is done by itself for a batch: that of some keys by one foreign key. An
// application that writes referencing rows all the time must not hold the batch up.
const maxCascades = 20

// onSQL names the partition that alone a foreign key references, of the table of the CTE rel.
const onSQL = `coalesce((select pg_catalog.format('%s%I.%I', case p.relkind when 'r' then 'only ' else '' end, s.nspname, p.relname)
    from pg_catalog.pg_class p join pg_catalog.pg_namespace s on s.oid = p.relnamespace where p.oid = k.confrelid and p.oid not in (select oid from rel)), '')`

const referencesSQL = treeSQL + ` select ` + onSQL + `, n.nspname::text, c.relname::text, c.relkind = 'r', k.confdeltype::text, k.confupdtype in ('c', 'n', 'd'),
  (select pg_catalog.array_agg(a.attname::text order by u.ord) from pg_catalog.unnest(k.conkey) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num),
  (select pg_catalog.array_agg(a.attname::text order by u.ord) from pg_catalog.unnest(k.confkey) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num),
  (select pg_catalog.array_agg('operator(' || pg_catalog.quote_ident(s.nspname) || '.' || o.oprname || ')' order by u.ord)
    from pg_catalog.unnest(k.conpfeqop) with ordinality as u(op, ord)
    join pg_catalog.pg_operator o on o.oid = u.op join pg_catalog.pg_namespace s on s.oid = o.oprnamespace),
  coalesce((select pg_catalog.array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = k.conrelid
    and a.attnum > 0 and pg_catalog.to_jsonb(k) -> 'confdelsetcols' @> pg_catalog.to_jsonb(a.attnum)), '{}')
from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.contype = 'f' and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')) and k.conparentid = 0
  and k.confrelid in (select oid from tree)
  and (c.relreplident in ('f', 'i') or exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary and i.indimmediate))
order by 2, 3, k.conname`

// reference is a foreign key onto a table, and the relation that holds it.
type reference struct {
	statement.Reference
	holder  wal.RelationName
	deletes bool // ON DELETE changes rows
	updates bool // ON UPDATE does
}

// loadReferences reads the foreign keys onto a table whose ON DELETE or ON UPDATE changes rows of replicated tables.
// Rows of the others are the server's to change: nobody else has them, and the role may have no right to see them.
func (a *Applier) loadReferences(ctx context.Context, q querier, name wal.RelationName) ([]reference, error) {
	rows, err := q.Query(ctx, referencesSQL, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys onto %s: %w", name, err)
	}
	refs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r reference, err error) {
		var action string
		err = row.Scan(&r.On, &r.holder.Schema, &r.holder.Name, &r.Only, &action, &r.updates, &r.Columns, &r.Parent, &r.Equals, &r.Set)
		r.Table = statement.Table(r.holder.Schema, r.holder.Name)
		r.deletes = strings.Contains("cnd", action)
		switch {
		case action == "c":
			r.Set = nil
			return r, err
		case len(r.Set) == 0:
			r.Set = r.Columns
		}
		r.To = map[string]string{"n": "null", "d": "default"}[action]
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read foreign keys onto %s: %w", name, err)
	}
	return slices.DeleteFunc(refs, func(r reference) bool { return a.cfg.Selected != nil && !a.cfg.Selected(r.holder) }), nil
}

// uncascaded makes sure that the deletes of some runs have nothing to cascade to.
func (a *Applier) uncascaded(ctx context.Context, g *batch.Group, t *target, deletes []int) error {
	if len(deletes) == 0 {
		return nil
	}
	s := a.keyShape(g, t)
	for _, r := range t.schema.references {
		if !r.deletes {
			continue
		}
		found := false
		if err := a.query(ctx, statement.Referencing(s, r.Reference), a.keyArrays(g, t, deletes, nil), []int16{0}, func([][]byte) { found = true }); err != nil {
			return fmt.Errorf("look for rows of %s that reference %s: %w", r.holder, g.Rel, err)
		}
		if !found {
			continue
		}
		e := &cascadeError{rel: g.Rel.Ref(), sql: statement.Cascade(s, r.Reference)}
		for _, arg := range a.keyArrays(g, t, deletes, nil) {
			e.args = append(e.args, bytes.Clone(arg))
		}
		a.used = 0
		if a.mayCascade(e) {
			return a.askCascade(e)
		}
	}
	return nil
}

// unmoved makes sure that the updates of some runs, which come with one mask, cascade to no row that their
// origin may not have seen: where columns that others reference change, the update is one of this region
// first, with the very row that came. The runs that follow find their row, then.
func (a *Applier) unmoved(ctx context.Context, g *batch.Group, t *target, mask string, runs []int, rows map[int]wal.Tuple) error {
	if a.cfg.Ordinary == nil {
		return nil
	}
	for _, r := range t.schema.references {
		if !r.updates {
			continue
		}
		var moved []int
		for _, i := range runs {
			image, err := a.textImage(ctx, g, t, i)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(r.Parent, func(name string) bool {
				c := g.Rel.Column(name)
				return c >= 0 && !image[c].Absent() && (image[c].Kind != rows[i][c].Kind || !bytes.Equal(image[c].Bytes, rows[i][c].Bytes))
			}) {
				moved = append(moved, i)
			}
		}
		if len(moved) == 0 {
			continue
		}
		s := a.keyShape(g, t)
		found := false
		if err := a.query(ctx, statement.Referencing(s, r.Reference), a.keyArrays(g, t, moved, nil), []int16{0}, func([][]byte) { found = true }); err != nil {
			return fmt.Errorf("look for rows of %s that reference %s: %w", r.holder, g.Rel, err)
		}
		if !found {
			continue
		}
		binary := binaryColumn(g, moved)
		var args [][]byte
		add := func(p statement.Param, c int, value func(int) wal.Value) {
			arr := a.array(p, t, c)
			for _, i := range moved {
				arr.value(value(i))
			}
			args = append(args, bytes.Clone(arr.param()))
		}
		for _, arg := range a.keyArrays(g, t, moved, nil) {
			args = append(args, bytes.Clone(arg))
		}
		for _, c := range []int{t.cols.Version, t.cols.UpdatedAt} {
			// The row is the one that was looked at. NULL equals nothing.
			if c >= 0 && !slices.ContainsFunc(moved, func(i int) bool { return rows[i][c].Kind == wal.Null }) {
				s.Key = append(s.Key, t.params[c])
				add(t.params[c], c, func(i int) wal.Value { return rows[i][c] })
			}
		}
		for _, c := range t.update {
			if mask == "" || mask[c] == maskWrite {
				p := t.paramsOf([]int{c}, binary)[0]
				s.Values = append(s.Values, p)
				add(p, c, func(i int) wal.Value { return g.Runs[i].Image[c] })
			}
		}
		a.used = 0
		if e := (&cascadeError{rel: g.Rel.Ref(), sql: statement.Update(s, statement.GuardNone), args: args}); a.mayCascade(e) {
			return a.askCascade(e)
		}
	}
	return nil
}

// askCascade asks for a cascade, unless a lock has kept it from being done and the change is to be parked by now:
// then it returns the error that says so.
func (a *Applier) askCascade(e *cascadeError) error {
	if a.impatient {
		if err := a.refused[e.name()]; err != nil {
			return err
		}
		if len(a.refused) >= maxCascades {
			return a.refusedLast
		}
	}
	return e
}

// name tells cascades of one batch apart.
func (e *cascadeError) name() string {
	sum := sha256.Sum256(bytes.Join(append([][]byte{[]byte(e.sql)}, e.args...), []byte{0}))
	return string(sum[:])
}

// cascade does what a cascadeError asks for. A lock that somebody holds is an error (lockLost): nothing was
// done then, and it must not be left to the apply transaction. Where it fails otherwise, the apply
// transaction will meet the same reason, and the change is parked with it.
func (a *Applier) cascade(ctx context.Context, e *cascadeError) error {
	conn, err := a.cfg.Ordinary(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The row itself is stored as it came; what the server changes because of it is this region's.
	if _, err := conn.Exec(ctx, "select pg_catalog.set_config('pgwaltz.apply', 'on', false)"); err != nil {
		return fmt.Errorf("begin a cascade: %w", err)
	}
	formats := slices.Repeat([]int16{1}, len(e.args))
	if r := conn.PgConn().ExecParams(ctx, e.sql, e.args, nil, formats, nil).Read(); r.Err != nil {
		if ctx.Err() != nil {
			return r.Err
		}
		if lockLost(r.Err) {
			return fmt.Errorf("change rows that reference one of %s: %w", e.rel, r.Err)
		}
		a.counted(e, maxCascades)
		a.cfg.Log.Warn("rows that reference a deleted one cannot be changed by themselves", "relation", e.rel.String(), "reason", publicError(r.Err))
	}
	a.counted(e, 1)
	return nil
}

// counted notes how often a cascade was done in this batch.
func (a *Applier) counted(e *cascadeError, times int) {
	if a.cascades == nil {
		a.cascades = map[string]int{}
	}
	a.cascades[e.name()] += times
}

// mayCascade reports whether a cascade is to be done by itself once more.
func (a *Applier) mayCascade(e *cascadeError) bool { return a.cascades[e.name()] < maxCascades }

// tryCascade is cascade for a batch. While somebody holds a lock it reports what to do by false: the lock was
// waited for long enough, and the changes are to be tried one by one, where those that it stops are parked.
func (a *Applier) tryCascade(ctx context.Context, e *cascadeError, p *patience) (bool, error) {
	err := a.cascade(ctx, e)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil || !lockLost(err):
		return false, err
	case !a.impatient && p.left(err):
		return true, a.recover(ctx, err, *p)
	}
	if a.refused == nil {
		a.refused = map[string]error{}
	}
	a.refused[e.name()], a.refusedLast = err, err
	return false, nil
}

// childrenFirst puts groups that only delete before the groups of the tables that they reference:
// what the origin deleted itself need not be deleted by a cascade.
func (a *Applier) childrenFirst(ctx context.Context, groups []*batch.Group) {
	if a.cfg.Replica {
		return
	}
	moves := len(groups) * len(groups) // tables may reference each other in a circle
	for i := 0; i < len(groups); i++ {
		t, err := a.target(ctx, groups[i].Rel)
		if err != nil || len(t.schema.references) == 0 {
			continue // an error is met again where it counts
		}
		for j := i + 1; j < len(groups); j++ {
			holds := slices.ContainsFunc(t.schema.references, func(r reference) bool { return r.deletes && r.holder == groups[j].Rel.Ref() })
			first := !slices.ContainsFunc(groups[:j], func(g *batch.Group) bool { return g.Rel.Ref() == groups[j].Rel.Ref() })
			if holds && first && onlyDeletes(groups[j]) && moves > 0 {
				child := groups[j]
				copy(groups[i+1:j+1], groups[i:j])
				groups[i] = child
				moves--
				i-- // the child may have children of its own
				break
			}
		}
	}
}

func onlyDeletes(g *batch.Group) bool {
	return len(g.Runs) > 0 && len(g.Exact) == 0 && !slices.ContainsFunc(g.Runs, func(r batch.Run) bool { return r.Op != wal.Delete })
}
