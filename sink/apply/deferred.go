package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// PostgreSQL checks a deferrable constraint by a trigger behind the write, and such triggers do
// not fire in a session with session_replication_role = replica. So the applier takes their
// place: it keeps other writers out of the table, looks up every key before it writes, and
// looks for rows that clash when all rows of the batch are written. So a swap inside one
// transaction works, as it does at its origin.

// deferred is a deferrable constraint.
type deferred struct {
	name  string
	table string // the table, or the partition of it that alone has the constraint
	only  bool   // it has no partitions of its own
	statement.Constraint
}

const deferredSQL = treeSQL + `
select con.conname::text, s.nspname::text, t.relname::text, t.relkind = 'r',
  array(select pg_catalog.pg_get_indexdef(i.indexrelid, k.ord, false)
      || coalesce((select pg_catalog.format(' collate %I.%I', n.nspname, l.collname) from pg_catalog.pg_collation l
        join pg_catalog.pg_namespace n on n.oid = l.collnamespace where l.oid = (i.indcollation::oid[])[k.ord - 1]), '')
    from pg_catalog.generate_series(1, i.indnkeyatts) as k(ord) order by k.ord),
  array(select pg_catalog.format('%I.%s', n.nspname, o.oprname) from pg_catalog.generate_series(1, i.indnkeyatts) as k(ord)
    join pg_catalog.pg_opclass c on c.oid = (i.indclass::oid[])[k.ord - 1]
    join pg_catalog.pg_operator o on o.oid = case when con.contype = 'x' then con.conexclop[k.ord]
      else (select m.amopopr from pg_catalog.pg_amop m where m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype
        and m.amoprighttype = c.opcintype and m.amopstrategy = 3) end
    join pg_catalog.pg_namespace n on n.oid = o.oprnamespace order by k.ord),
  coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''),
  coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
from tree join pg_catalog.pg_constraint con on con.conrelid = tree.oid
join pg_catalog.pg_index i on i.indexrelid = con.conindid
join pg_catalog.pg_class t on t.oid = con.conrelid join pg_catalog.pg_namespace s on s.oid = t.relnamespace
where con.contype in ('p', 'u', 'x') and con.condeferrable and (con.conparentid = 0 or con.conrelid in (select oid from rel)) order by 2, 3, 1`

func loadDeferred(ctx context.Context, q querier, name wal.RelationName) ([]deferred, error) {
	rows, err := q.Query(ctx, deferredSQL, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read constraints of %s: %w", name, err)
	}
	defer rows.Close()
	var out []deferred
	for rows.Next() {
		var d deferred
		var terms, operators []string
		var at wal.RelationName
		if err := rows.Scan(&d.name, &at.Schema, &at.Name, &d.only, &terms, &operators, &d.Where, &d.Nulls); err != nil {
			return nil, fmt.Errorf("read constraints of %s: %w", name, err)
		}
		if len(terms) == 0 || len(terms) != len(operators) {
			return nil, &schemaError{name: name, code: "0A000", what: "the operators of the deferrable constraint " + d.name + " are not known"}
		}
		d.table = quoted(at)
		for i := range terms {
			d.Terms = append(d.Terms, statement.Term{Expr: terms[i], Operator: operators[i]})
		}
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read constraints of %s: %w", name, err)
	}
	return out, nil
}

// clashError says that rows would break a deferrable constraint.
type clashError struct {
	name       wal.RelationName
	constraint string
}

func (e *clashError) Error() string {
	return fmt.Sprintf("apply to %s: another row is in the way under the deferrable constraint %s", e.name, e.constraint)
}

// lockDeferred keeps other writers out of those tables of a wave whose constraints nobody
// checks for us. The self-merge hardly ever writes to a table: it locks one when it does
// (lockWritten).
func (a *Applier) lockDeferred(ctx context.Context, b *pipeline, groups []*batch.Group) {
	if !a.cfg.Replica || a.cfg.Self {
		return
	}
	for _, g := range groups {
		if t, err := a.target(ctx, g.Rel); err == nil && len(t.schema.deferred) > 0 {
			b.text(statement.LockTable(t.shape))
		}
	}
}

// lockWritten is lockDeferred for a table that the self-merge is about to write to.
func (a *Applier) lockWritten(b *pipeline, d decided) {
	if a.cfg.Self && a.cfg.Replica && len(d.t.schema.deferred) > 0 && len(d.inserts)+len(d.updates) > 0 {
		b.text(statement.LockTable(d.t.shape))
	}
}

// unwritten reports that a transaction of the self-merge has written to no table of the application.
func (a *Applier) unwritten(fx *effects) bool { return a.cfg.Self && fx.rows == 0 }

// staleSQL fails where one of the given tables has a deferrable constraint. It goes out with the
// commit, behind the writes: these hold locks on the tables, so none comes later.
const staleSQL = `select 1 / case when exists (select from pg_catalog.pg_index i
  where i.indrelid = any($1::int8[]::oid[]) and not i.indimmediate and (i.indisunique or i.indisexclusion)) then 0 else 1 end`

// guardDeferred queues the question whether the tables that the attempt took for tables without
// deferrable constraints still have none.
func (a *Applier) guardDeferred(ctx context.Context, b *pipeline, fx *effects) error {
	if !a.cfg.Replica || len(a.touched) == 0 || a.unwritten(fx) && a.openFx.rows == 0 {
		return nil
	}
	oids := a.scratch(wal.OIDInt8)
	for oid := range a.touched {
		oids.int8(int64(oid))
	}
	return a.exec(ctx, b, staleSQL, [][]byte{oids.param()}, []int16{1})
}

// checkDeferred looks for rows that clash with what a group has written.
func (a *Applier) checkDeferred(ctx context.Context, g *batch.Group, fx *effects) error {
	if !a.cfg.Replica || len(g.Runs) == 0 || a.unwritten(fx) {
		return nil
	}
	t, err := a.target(ctx, g.Rel)
	var misfit *schemaError
	if errors.As(err, &misfit) {
		return nil // the group is parked
	}
	if err != nil || len(t.schema.deferred) == 0 {
		return err
	}
	if a.open && !a.giant.failed {
		// What is in the way now may leave in a later part.
		if a.openDeferred == nil {
			a.openDeferred = map[wal.RelationName]*target{}
		}
		a.openDeferred[g.Rel.Ref()] = t
		return nil
	}
	for first := 0; first < len(g.Runs); first += chunkRows {
		runs := make([]int, 0, chunkRows)
		for i := first; i < len(g.Runs) && i < first+chunkRows; i++ {
			runs = append(runs, i)
		}
		for _, d := range t.schema.deferred {
			clash := false
			s := a.keyShape(g, t)
			s.Table, s.Only = d.table, d.only
			sql := statement.Clash(s, d.Constraint)
			if err := a.query(ctx, sql, a.keyArrays(g, t, runs, nil), []int16{1}, func([][]byte) { clash = true }); err != nil {
				return fmt.Errorf("look for rows that clash in %s: %w", g.Rel, err)
			}
			if clash {
				return &clashError{name: g.Rel.Ref(), constraint: d.name}
			}
		}
	}
	return nil
}

// checkOpen looks for rows that clash with what the parts of a giant transaction have written, when all are in. Where some do, it is
// tried once more, and looked at behind each part.
func (a *Applier) checkOpen(ctx context.Context) error {
	for name, t := range a.openDeferred {
		if err := a.simple(ctx, "set local enable_hashjoin = on; set local enable_seqscan = on"); err != nil {
			return err
		}
		for _, d := range t.schema.deferred {
			clash := false
			s := t.shape
			s.Table, s.Only = d.table, d.only
			if err := a.query(ctx, statement.ClashNow(s, d.Constraint), nil, []int16{1}, func([][]byte) { clash = true }); err != nil {
				return fmt.Errorf("look for rows that clash in %s: %w", name, err)
			}
			if clash {
				return &clashError{name: name, constraint: d.name}
			}
		}
		if err := a.simple(ctx, "set local enable_hashjoin = off; set local enable_seqscan = off"); err != nil {
			return err
		}
	}
	a.openDeferred = nil
	return nil
}
