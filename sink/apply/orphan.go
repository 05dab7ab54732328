package apply

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// With session_replication_role = replica no foreign key is checked for applied rows, and nothing
// cascades. A row that one region deletes, while another one inserts a row that references it,
// leaves an orphan in both. It is seen where the delete arrives, since the other row is there; it is
// recorded, and the origin of the delete is told.

const (
	// maxOrphans is how many orphans of one foreign key a transaction records.
	maxOrphans = 1000
	// maxRemoved is of how many deletes a transaction of many parts remembers the keys.
	maxRemoved = 100_000
)

// removes notes a delete that was carried out, if rows may reference what it deleted.
func (a *Applier) removes(g *batch.Group, t *target, i int, fx *effects) {
	if !a.cfg.Replica || !t.schema.parent || a.cfg.Self {
		return
	}
	if fx.removed == nil {
		fx.removed = map[*target]*batch.Group{}
	}
	kept := fx.removed[t]
	if kept == nil {
		kept = &batch.Group{Rel: g.Rel, Binary: g.Binary, Kind: g.Kind, Key: g.Key}
		fx.removed[t] = kept
	}
	r := &g.Runs[i]
	one := batch.Run{Op: wal.Delete, Stamp: r.Stamp, Key: r.Key, Tx: r.Tx}
	if r.Full && !g.Binary {
		one.Image, one.Full = r.Image, true
	}
	kept.Runs = append(kept.Runs, one)
}

// addRemoved merges what another attempt removed. With a limit, which is for what outlives the
// packets that the deletes came in, only the keys are kept.
func (fx *effects) addRemoved(o map[*target]*batch.Group, limit int) {
	for t, g := range o {
		if fx.removed == nil {
			fx.removed = map[*target]*batch.Group{}
		}
		kept := fx.removed[t]
		if kept == nil {
			kept = &batch.Group{Rel: g.Rel, Binary: g.Binary, Kind: g.Kind, Key: g.Key}
			fx.removed[t] = kept
		}
		if limit == 0 {
			kept.Runs = append(kept.Runs, g.Runs...)
			continue
		}
		var light *wal.Transaction
		for i := range g.Runs {
			r := &g.Runs[i]
			if len(kept.Runs) >= limit {
				break
			}
			if light == nil || light.CommitLSN != r.Tx.CommitLSN {
				light = &wal.Transaction{XID: r.Tx.XID, Origin: r.Tx.Origin, CommitLSN: r.Tx.CommitLSN, EndLSN: r.Tx.EndLSN, CommitTime: r.Tx.CommitTime}
			}
			one := batch.Run{Op: wal.Delete, Stamp: r.Stamp, Tx: light, Key: make([]wal.Value, len(r.Key))}
			for n, v := range r.Key {
				one.Key[n] = wal.Value{Kind: v.Kind, Bytes: bytes.Clone(v.Bytes)}
			}
			kept.Runs = append(kept.Runs, one)
		}
	}
}

const childrenSQL = treeSQL + ` select ` + onSQL + `, k.conname::text, n.nspname::text, c.relname::text, c.relkind = 'r',
  (select pg_catalog.array_agg(a.attname::text order by u.ord) from pg_catalog.unnest(k.conkey) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num),
  (select pg_catalog.array_agg(a.attname::text order by u.ord) from pg_catalog.unnest(k.confkey) with ordinality as u(num, ord)
    join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num),
  (select pg_catalog.array_agg('operator(' || pg_catalog.quote_ident(s.nspname) || '.' || o.oprname || ')' order by u.ord)
    from pg_catalog.unnest(k.conpfeqop) with ordinality as u(op, ord)
    join pg_catalog.pg_operator o on o.oid = u.op join pg_catalog.pg_namespace s on s.oid = o.oprnamespace)
from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.contype = 'f' and k.conparentid = 0 and k.confrelid in (select oid from tree)
  and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
order by 3, 4, 2`

// child is a foreign key onto a table, and the relation that holds it as it is here.
type child struct {
	reference
	constraint string
	rel        *wal.Relation
	columns    []string
}

// loadChildren reads the foreign keys onto a table, but for those of tables that are not replicated: their rows
// are not for other regions, and the role may have no right to see them.
func (a *Applier) loadChildren(ctx context.Context, q querier, s *tableSchema) ([]child, error) {
	rows, err := q.Query(ctx, childrenSQL, s.name.Schema, s.name.Name)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys onto %s: %w", s.name, err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c child, err error) {
		err = row.Scan(&c.On, &c.constraint, &c.holder.Schema, &c.holder.Name, &c.Only, &c.Columns, &c.Parent, &c.Equals)
		c.Table = statement.Table(c.holder.Schema, c.holder.Name)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read foreign keys onto %s: %w", s.name, err)
	}
	out = slices.DeleteFunc(out, func(c child) bool { return a.cfg.Selected != nil && !a.cfg.Selected(c.holder) })
	for i := range out {
		table, err := loadSchema(ctx, q, out[i].holder, true)
		if err != nil {
			return nil, err
		}
		out[i].rel = table.relation()
		for _, c := range out[i].rel.Columns {
			out[i].columns = append(out[i].columns, c.Name)
		}
	}
	return out, nil
}

// relation describes the table as an origin would.
func (s *tableSchema) relation() *wal.Relation {
	rel := &wal.Relation{Schema: s.name.Schema, Name: s.name.Name, Identity: wal.IdentityFull}
	for _, c := range s.columns {
		col := wal.Column{Name: c.name, OID: c.oid, TypeMod: -1, Key: true}
		if c.oid >= 16384 {
			col.Type = c.typ
		}
		rel.Columns = append(rel.Columns, col)
	}
	for i := range s.key.Columns {
		at := rel.Column(s.key.Columns[i].Name)
		if at < 0 {
			rel.PrimaryKey = nil
			break
		}
		rel.Columns[at].Form = s.key.Columns[i].Form
		rel.PrimaryKey = append(rel.PrimaryKey, at)
	}
	return rel
}

// orphans records the rows that reference what this transaction has deleted.
func (a *Applier) orphans(ctx context.Context, fx *effects) error {
	for t, g := range fx.removed {
		s := t.schema
		if !s.childrenRead {
			var err error
			if s.children, err = a.loadChildren(ctx, a.conn, s); err != nil {
				return err
			}
			s.childrenRead = true
		}
		for i := range s.children {
			c := &s.children[i]
			err := a.orphansOf(ctx, g, t, c, fx)
			switch {
			case err == nil:
			case a.conn.IsClosed() || ctx.Err() != nil || !a.setAside(err):
				return fmt.Errorf("look for rows of %s that reference %s: %w", c.holder, g.Rel, err)
			default:
				// It is about one table that may not even be replicated, and the delete is right without it.
				a.cfg.Log.Warn("cannot look for orphans", "relation", c.holder, "constraint", c.constraint, "reason", publicError(err))
				if err := a.simple(ctx, "rollback to savepoint orphans; release savepoint orphans"); err != nil {
					return err
				}
			}
		}
	}
	fx.removed = nil
	return nil
}

func (a *Applier) orphansOf(ctx context.Context, g *batch.Group, t *target, c *child, fx *effects) error {
	parent := make([]statement.Param, len(c.Parent))
	at := make([]int, len(c.Parent)) // place in the key, or len(key) plus the place in the image
	whole := false
	for i, name := range c.Parent {
		col := g.Rel.Column(name)
		if col < 0 {
			return nil // a column that the origin does not have
		}
		parent[i], at[i] = t.params[col], len(g.Key)+col
		for n, k := range g.Key {
			if k == col {
				at[i], parent[i].Binary = n, g.Binary
			}
		}
		whole = whole || at[i] >= len(g.Key)
	}
	var runs []int
	for i := range g.Runs {
		if !whole || g.Runs[i].Full {
			runs = append(runs, i)
		}
	}
	if len(runs) == 0 {
		return nil
	}
	args := make([][]byte, len(parent))
	for i := range parent {
		arr := a.array(parent[i], t, g.Rel.Column(c.Parent[i]))
		for _, n := range runs {
			if at[i] < len(g.Key) {
				arr.value(g.Runs[n].Key[at[i]])
			} else {
				arr.value(g.Runs[n].Image[at[i]-len(g.Key)])
			}
		}
		args[i] = arr.param()
	}
	// Where no index helps, all rows are read once, and not once for each key.
	if err := a.simple(ctx, "savepoint orphans; set local enable_hashjoin = on; set local enable_seqscan = on"); err != nil {
		return err
	}
	formats := make([]int16, 1+len(c.columns))
	formats[0] = 1
	key := c.rel.KeyColumns()
	err := a.query(ctx, statement.Orphans(t.shape, parent, c.Reference, c.columns, maxOrphans), args, formats, func(v [][]byte) {
		row := make(wal.Tuple, len(c.columns))
		for i := range row {
			row[i] = clone(v[i+1])
		}
		a.orphan(g, &g.Runs[runs[int8Of(v[0])-1]], c, row, key, fx)
	})
	if err != nil {
		return err
	}
	return a.simple(ctx, "set local enable_hashjoin = off; set local enable_seqscan = off; release savepoint orphans")
}

// orphan records one row that references a deleted one.
func (a *Applier) orphan(g *batch.Group, deleted *batch.Run, c *child, row wal.Tuple, key []int, fx *effects) {
	dead := conflict.Side{Known: true, Stamp: deleted.Stamp}
	rec := a.plainRecord(c.rel, conflict.Orphan, conflict.Reason("constraint "+c.constraint+": the row of "+g.Rel.String()+" is deleted"), deleted.Tx, dead)
	rec.LocalRow = a.json(c.rel, row)
	name := string(rec.LocalRow)
	if key != nil {
		rec.Key = a.keyJSON(c.rel, row, key)
		name = string(rec.Key)
	}
	rec.EventID = conflict.EventID(c.rel.Ref(), c.constraint+" "+name, dead, conflict.Side{})
	keys := make(wal.Tuple, len(row))
	for i := range keys {
		keys[i].Kind = wal.Null
	}
	for _, k := range key {
		keys[k] = row[k]
	}
	a.conflict(fx, c.rel, rec, wal.Entry{Known: true, Stamp: deleted.Stamp, Row: keys}, wal.Entry{Known: true, Alive: true, Row: row})
}
