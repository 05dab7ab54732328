package names

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What is known of the keys of a table is kept in its ledger (tombstone.LedgerSchema), which it takes along when it is renamed. So when names are noted it is said
// which ledger each table has that is called otherwise than when it was looked at last, before anything is decided by the new name.
//
// Two tables may have been made to take each other's place, or one to replace the other. One that swaps its name with another one, or passes it on to a third,
// has been what it is all along. One that was filled from another table, and has got its name, holds the same rows: what was kept under that name
// goes for it, too. That is so for a table of which no other region knows, whose former name nobody has got, and that held rows when it was renamed. A
// table that is new under a name, and empty, has nothing to do with who had it before.

// taker is a table that is called otherwise than at the last look, or is new under a name that another one had.
type taker struct {
	table    uint32
	is       wal.RelationName
	was      wal.RelationName // empty: it is new
	taken    bool             // a table had the name before
	vacant   bool             // no table has the name that it had
	foreign  bool             // tables of other regions stand for it
	holder   uint32           // the table that had the name last, if it is still there
	known    bool             // see ledger
	inherits bool
}

// takersSQL finds them; $1 and $2 are the names of ledgers, $3 to $5 the tables and names of which is said which ledger they have.
const takersSQL = `with now as materialized (
  select n.nspname::text as s, c.relname::text as t, c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz')
)
select n.oid::int8, n.s, n.t, coalesce(m.schema_name, ''), coalesce(m.table_name, ''), h.schema_name is not null and h.table_oid <> n.oid,
  not exists (select from now o where o.s = m.schema_name and o.t = m.table_name),
  coalesce((select o.oid::int8 from now o where o.oid = h.table_oid and o.oid <> n.oid), 0),
  m.schema_name is not null
from now n
left join pgwaltz.name m on m.table_oid = n.oid and m.left_at is null and (m.schema_name, m.table_name) is distinct from (n.s, n.t)
left join pgwaltz.name h on h.schema_name = n.s and h.table_name = n.t
where not exists (select from unnest($3::int8[], $4::text[], $5::text[]) as l(o, s, t) where l.o::oid = n.oid and l.s = n.s and l.t = n.t)
  and (m.schema_name is not null or not exists (select from pgwaltz.name k where k.table_oid = n.oid)
    and (h.table_oid not in (0, n.oid) or exists (select from unnest($1::text[], $2::text[]) as u(s, t) where u.s = n.s and u.t = n.t)))
order by n.oid, m.schema_name, m.table_name`

// noteLedgers says which ledgers tables have under their names. It runs in front of the look, in its transaction.
func noteLedgers(ctx context.Context, q Querier) error {
	stored, err := tombstone.Ledgers(ctx, q)
	if err != nil {
		return err
	}
	var ledgers, of []wal.RelationName
	tables := []int64{}
	for n, l := range stored {
		ledgers, of, tables = append(ledgers, l), append(of, n.Name), append(tables, int64(n.Table))
	}
	schemas, list := split(ledgers)
	ofSchemas, ofNames := split(of)
	rows, err := q.Query(ctx, takersSQL, schemas, list, tables, ofSchemas, ofNames)
	if err != nil {
		return fmt.Errorf("look for tables that were renamed: %w", err)
	}
	takers, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (t taker, err error) {
		var table, holder int64
		err = r.Scan(&table, &t.is.Schema, &t.is.Name, &t.was.Schema, &t.was.Name, &t.taken, &t.vacant, &holder, &t.known)
		t.table, t.holder = uint32(table), uint32(holder)
		return t, err
	})
	if err != nil {
		return fmt.Errorf("look for tables that were renamed: %w", err)
	}
	if len(takers) == 0 {
		return nil
	}
	foreign, err := counterpart.Tables(ctx, q)
	if err != nil {
		return err
	}
	for i := range takers {
		t := &takers[i]
		t.foreign = slices.Contains(foreign, int64(t.table))
		if t.known && (!t.taken || !t.vacant || t.foreign) {
			continue
		}
		if t.inherits, err = heldRows(ctx, q, t.table, t.holder); err != nil {
			return err
		}
	}
	if err := tombstone.NoteLedgers(ctx, q, decideLedgers(stored, takers)); err != nil {
		return err
	}
	return tombstone.ForgetLedgers(ctx, q, keep)
}

// decideLedgers returns the ledgers of tables that were renamed, under both names, and of new ones whose name is the ledger of another table.
func decideLedgers(stored map[tombstone.Named]wal.RelationName, takers []taker) map[tombstone.Named]wal.RelationName {
	out := map[tombstone.Named]wal.RelationName{}
	used := map[wal.RelationName]bool{}
	for _, l := range stored {
		used[l] = true
	}
	for _, t := range takers {
		if !t.known {
			continue
		}
		before := tombstone.Named{Table: t.table, Name: t.was}
		ledger, ok := stored[before]
		if !ok {
			ledger = t.was
		}
		out[before] = ledger
		if t.inherits {
			ledger = t.is
		}
		out[tombstone.Named{Table: t.table, Name: t.is}] = ledger
		used[ledger] = true
	}
	for _, t := range takers {
		switch n := (tombstone.Named{Table: t.table, Name: t.is}); {
		case t.known || !used[t.is]:
		case t.inherits:
			out[n] = t.is
		default:
			out[n] = wal.RelationName{Schema: t.is.Schema, Name: fmt.Sprintf("%s [%d]", t.is.Name, t.table)}
		}
	}
	return out
}

// heldRows reports whether a table holds rows that were written before it was renamed, or by who did that; holder is the table that had the name before, 0
// when it is gone. Which rows a partitioned table holds, or one that the role may not read, or of which a policy hides rows from it, is not looked at: it may. It may be
// any table of the database, also one that is not replicated, and no look at names may fail for it.
func heldRows(ctx context.Context, q Querier, table, holder uint32) (bool, error) {
	rows, err := q.Query(ctx, `select pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind = 'r' and pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage') and not pg_catalog.row_security_active(c.oid),
  (select pg_catalog.max(pg_catalog.age(o.xmin)) from pg_catalog.pg_class o where o.oid in ($1::int8::oid, $2::int8::oid))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1::int8::oid`, int64(table), int64(holder))
	if err != nil {
		return false, fmt.Errorf("look at a table that was renamed: %w", err)
	}
	var name string
	var may bool
	var age int32
	if _, err := pgx.ForEachRow(rows, []any{&name, &may, &age}, func() error { return nil }); err != nil {
		return false, fmt.Errorf("look at a table that was renamed: %w", err)
	}
	if name == "" || !may {
		return name != "", nil
	}
	if rows, err = q.Query(ctx, `select exists (select from only `+name+` as r where pg_catalog.age(r.xmin) >= $1)`, age); err != nil {
		return false, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	held, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	return held, nil
}

// adoptLedgers tells the ledgers on another server, where tables have other numbers: under the names that they have now.
func adoptLedgers(ctx context.Context, q Querier) error {
	stored, err := tombstone.Ledgers(ctx, q)
	if err != nil || len(stored) == 0 {
		return err
	}
	rows, err := q.Query(ctx, `select k.table_oid::int8, c.oid::int8, k.schema_name, k.table_name from pgwaltz.name k
join pg_catalog.pg_namespace n on n.nspname = k.schema_name join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = k.table_name and c.relkind in ('r', 'p')
where k.left_at is null and k.table_oid <> 0`)
	if err != nil {
		return err
	}
	of := map[tombstone.Named]wal.RelationName{}
	var was, is int64
	var n wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&was, &is, &n.Schema, &n.Name}, func() error {
		if l, ok := stored[tombstone.Named{Table: uint32(was), Name: n}]; ok {
			of[tombstone.Named{Table: uint32(is), Name: n}] = l
		}
		return nil
	}); err != nil {
		return err
	}
	if err := tombstone.ForgetLedgers(ctx, q, ""); err != nil {
		return err
	}
	return tombstone.NoteLedgers(ctx, q, of)
}

// Noted is what a process remembers of the names that were noted. The zero value knows none.
type Noted struct {
	of      map[uint32]wal.RelationName
	by      map[wal.RelationName]uint32
	Ledgers map[tombstone.Named]wal.RelationName
}

// LoadNoted reads it.
func LoadNoted(ctx context.Context, q Querier) (n Noted, err error) {
	if n.Ledgers, err = tombstone.Ledgers(ctx, q); err != nil {
		return n, err
	}
	rows, err := q.Query(ctx, `select schema_name, table_name, table_oid::int8 from pgwaltz.name where left_at is null`)
	if err != nil {
		return n, fmt.Errorf("read names of tables: %w", err)
	}
	n.of, n.by = map[uint32]wal.RelationName{}, map[wal.RelationName]uint32{}
	var name wal.RelationName
	var table int64
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &table}, func() error {
		if table != 0 {
			n.of[uint32(table)], n.by[name] = name, uint32(table)
		}
		return nil
	}); err != nil {
		return n, fmt.Errorf("read names of tables: %w", err)
	}
	return n, nil
}

// Table is the table that was noted under a name; 0 for none.
func (n *Noted) Table(name wal.RelationName) uint32 { return n.by[name] }

// Name is the name under which a table was noted.
func (n *Noted) Name(table uint32) (name wal.RelationName, ok bool) {
	name, ok = n.of[table]
	return name, ok
}

// Knows reports whether it is said which ledger a table has under a name.
func (n *Noted) Knows(table uint32, name wal.RelationName) bool {
	_, said := n.Ledgers[tombstone.Named{Table: table, Name: name}]
	return said || n.by[name] == table
}

// Meets says which ledger a table has under a name by which the WAL has it, where the look behind that has not said it: the table has had the name for a
// moment between two looks, or is gone. It returns the ledger.
func (n *Noted) Meets(ctx context.Context, q Querier, table uint32, name wal.RelationName) error {
	ledger := name
	if now, ok := n.of[table]; ok {
		if ledger, ok = n.Ledgers[tombstone.Named{Table: table, Name: now}]; !ok {
			ledger = now
		}
	}
	of := map[tombstone.Named]wal.RelationName{{Table: table, Name: name}: ledger}
	if err := tombstone.NoteLedgers(ctx, q, of); err != nil {
		return err
	}
	n.Ledgers[tombstone.Named{Table: table, Name: name}] = ledger
	return nil
}
