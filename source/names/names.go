// Package names keeps which names the tables of a database have and had (pgwaltz.name), and which of
// them are published. A change that was under way while a table was renamed comes by the name that it
// had; and a table that left the publication without a word, because it was dropped or moved away, is
// known by it. All of that outlives the process.
package names

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Schema makes the table of names. table_oid is the table that had the name when it was looked at
// last, 0 when that is gone. left_at is since when no table has the name. published is the table that was
// published under it, 0 when none was, and identity_full whether it had the replica identity FULL. due says that changes followed a table to this name, and that
// its rows are to be copied when these are in. left_out says why changes of the table were left out, until a resync. manner, filter and leaves
// are a Manner. It may be run again.
const Schema = `create table if not exists pgwaltz.name (
  schema_name text collate "C" not null,
  table_name  text collate "C" not null,
  table_oid   oid not null default 0,
  published   oid not null default 0,
  identity_full boolean not null default false,
  due         boolean not null default false,
  left_out    text,
  manner      text,
  filter      text not null default '',
  leaves      boolean not null default false,
  left_at     timestamptz,
  primary key (schema_name, table_name)
)`

// keep is for how long a name is remembered that no table has any more.
const keep = "90 days"

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// lookSQL notes the names that tables have, and returns those that are called otherwise than at the last look, or are new under a name that another one had; and,
// with none of the rest but that it is kept, those of which is said which ledger they have under the name that they have. All of it is one statement: a table that is renamed meanwhile is in what is
// noted as it is in what is returned. $1 is an interval, $2 and $3 are the names of ledgers, $4 to $6 the tables and names of which is said which ledger they have.
const lookSQL = `with now as materialized (
  select n.nspname::text as s, c.relname::text as t, c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz')
), said as materialized (
  select * from unnest($4::int8[], $5::text[], $6::text[]) as l(o, s, t)
), old as (
  delete from pgwaltz.name k where left_at < pg_catalog.now() - $1::interval and not exists (select from now where s = k.schema_name and t = k.table_name)
), gone as (
  update pgwaltz.name k set left_at = coalesce(left_at, pg_catalog.now()), table_oid = case when exists (select from now where oid = k.table_oid) then table_oid else 0 end
  where not exists (select from now where s = k.schema_name and t = k.table_name) and (left_at is null or table_oid <> 0 and not exists (select from now where oid = k.table_oid))
), noted as (
  insert into pgwaltz.name as k (schema_name, table_name, table_oid) select s, t, oid from now
  where not exists (select from pgwaltz.name k where k.schema_name = s and k.table_name = t and k.table_oid = oid and k.left_at is null)
  on conflict (schema_name, table_name) do update set table_oid = excluded.table_oid, left_at = null
)
select n.oid::int8, n.s, n.t, coalesce(m.schema_name, ''), coalesce(m.table_name, ''), h.schema_name is not null and h.table_oid <> n.oid,
  not exists (select from now o where o.s = m.schema_name and o.t = m.table_name),
  coalesce(nullif(h.table_oid, n.oid), 0)::int8, exists (select from now o where o.oid = h.table_oid and o.oid <> n.oid),
  m.schema_name is not null, false
from now n
left join pgwaltz.name m on m.table_oid = n.oid and m.left_at is null and (m.schema_name, m.table_name) is distinct from (n.s, n.t)
left join pgwaltz.name h on h.schema_name = n.s and h.table_name = n.t
where not exists (select from said l where l.o::oid = n.oid and l.s = n.s and l.t = n.t)
  and (m.schema_name is not null or not exists (select from pgwaltz.name k where k.table_oid = n.oid)
    and (h.table_oid not in (0, n.oid) or exists (select from unnest($2::text[], $3::text[]) as u(s, t) where u.s = n.s and u.t = n.t)))
union all
select n.oid::int8, n.s, n.t, '', '', false, false, 0, false, false, true from now n join said l on l.o::oid = n.oid and l.s = n.s and l.t = n.t
order by 1, 4, 5`

// adoptSQL tells the names on another server: the numbers of the former one may belong to any table here, as they do
// behind pg_dump. Where a table has the name, it is known by that; what other names it had is forgotten.
const adoptSQL = `with now as materialized (
  select n.nspname::text as s, c.relname::text as t, c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p')
)
update pgwaltz.name k set table_oid = coalesce((select oid from now where s = k.schema_name and t = k.table_name), 0),
  manner = null, published = case when published <> 0 then coalesce((select oid from now where s = k.schema_name and t = k.table_name), 0) else 0 end`

// Adopt makes names known by the tables of this server (adoptSQL). It is called before anything else here, when the database was on another server before.
func Adopt(ctx context.Context, q Querier) error {
	err := adoptLedgers(ctx, q)
	if err == nil {
		_, err = q.Exec(ctx, adoptSQL)
	}
	if err != nil {
		return fmt.Errorf("adopt names of tables: %w", err)
	}
	return nil
}

// Look notes the names that tables have now, and under which names what is known of their keys is kept (noteLedgers). q is in a transaction.
func Look(ctx context.Context, q Querier) error {
	stored, err := tombstone.ReadLedgers(ctx, q)
	if err != nil {
		return err
	}
	takers, err := look(ctx, q, stored)
	if err != nil {
		return err
	}
	return noteLedgers(ctx, q, stored, takers)
}

// look notes the names, and returns the tables of which is to be said which ledger they have, and those that have one said.
func look(ctx context.Context, q Querier, stored tombstone.Ledgers) ([]taker, error) {
	var ledgers, of []wal.RelationName
	tables := []int64{}
	for n, l := range stored.Of {
		ledgers, of, tables = append(ledgers, l), append(of, n.Name), append(tables, int64(n.Table))
	}
	schemas, list := split(ledgers)
	ofSchemas, ofNames := split(of)
	rows, err := q.Query(ctx, lookSQL, keep, schemas, list, tables, ofSchemas, ofNames)
	if err != nil {
		return nil, fmt.Errorf("note names of tables: %w", err)
	}
	takers, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (t taker, err error) {
		var table, holder int64
		err = r.Scan(&table, &t.is.Schema, &t.is.Name, &t.was.Schema, &t.was.Name, &t.taken, &t.vacant, &holder, &t.held, &t.known, &t.said)
		t.table, t.holder = uint32(table), uint32(holder)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("note names of tables: %w", err)
	}
	return takers, nil
}

// Meet notes a name under which the WAL has rows of the table oid, where no table has it any more: the table may
// have had it for a moment between two looks.
func Meet(ctx context.Context, q Querier, name wal.RelationName, oid uint32) error {
	_, err := q.Exec(ctx, `insert into pgwaltz.name as k (schema_name, table_name, table_oid, left_at) select $1::text, $2::text, $3::int8::oid, pg_catalog.now()
where exists (select from pg_catalog.pg_class where oid = $3::int8::oid and relkind in ('r', 'p'))
  and not exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1::text and c.relname = $2::text and c.relkind in ('r', 'p'))
on conflict (schema_name, table_name) do update set table_oid = excluded.table_oid, left_at = coalesce(k.left_at, excluded.left_at) where k.table_oid <> excluded.table_oid`,
		name.Schema, name.Name, int64(oid))
	if err != nil {
		return fmt.Errorf("note a name of %s: %w", name, err)
	}
	return nil
}

// Standing is what the catalog says of a table that the WAL names.
type Standing struct {
	Named bool // the table has that name now: Meet would note nothing
	// Whole: it is neither partitioned nor a partition.
	Whole bool
}

// Stands looks at the table oid, of which the WAL has rows under a name. Of a table that is gone it says nothing.
func Stands(ctx context.Context, q Querier, name wal.RelationName, oid uint32) (Standing, error) {
	rows, err := q.Query(ctx, `select n.nspname::text = $1::text and c.relname::text = $2::text, c.relkind = 'r' and not c.relispartition
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $3::int8::oid and c.relkind in ('r', 'p')`, name.Schema, name.Name, int64(oid))
	if err != nil {
		return Standing{}, fmt.Errorf("look at %s: %w", name, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Standing])
	if err != nil {
		return Standing{}, fmt.Errorf("look at %s: %w", name, err)
	}
	if len(list) == 0 {
		return Standing{}, nil
	}
	return list[0], nil
}

// Renamed is a table that has another name now, while no table has the old one.
type Renamed struct{ Was, Is wal.RelationName }

// Former lists the names that tables had and that nothing else has now.
func Former(ctx context.Context, q Querier) ([]Renamed, error) {
	rows, err := q.Query(ctx, `select k.schema_name, k.table_name, n.nspname::text, c.relname::text
from pgwaltz.name k join pg_catalog.pg_class c on c.oid = k.table_oid and c.relkind in ('r', 'p') join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where (k.schema_name, k.table_name) is distinct from (n.nspname::text, c.relname::text)
  and not exists (select from pg_catalog.pg_class o join pg_catalog.pg_namespace m on m.oid = o.relnamespace where m.nspname = k.schema_name and o.relname = k.table_name and o.relkind in ('r', 'p'))`)
	if err != nil {
		return nil, fmt.Errorf("read former names of tables: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (f Renamed, err error) {
		return f, r.Scan(&f.Was.Schema, &f.Was.Name, &f.Is.Schema, &f.Is.Name)
	})
	if err != nil {
		return nil, fmt.Errorf("read former names of tables: %w", err)
	}
	return list, nil
}

// Called tells what tables are called now; those that are gone are left out.
func Called(ctx context.Context, q Querier, tables []uint32) (map[uint32]wal.RelationName, error) {
	oids := make([]int64, len(tables))
	for i, t := range tables {
		oids[i] = int64(t)
	}
	rows, err := q.Query(ctx, `select c.oid::int8, n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any($1::int8[]::oid[]) and c.relkind in ('r', 'p')`, oids)
	if err != nil {
		return nil, fmt.Errorf("read names of tables: %w", err)
	}
	out := map[uint32]wal.RelationName{}
	var oid int64
	var n wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&oid, &n.Schema, &n.Name}, func() error { out[uint32(oid)] = n; return nil }); err != nil {
		return nil, fmt.Errorf("read names of tables: %w", err)
	}
	return out, nil
}

// SetDue notes that the rows of tables are to be copied when the changes are in that followed them, and all regions have the
// same stamp columns. A table may be named twice.
func SetDue(ctx context.Context, q Querier, tables []wal.RelationName) error {
	schemas, names := split(tables)
	_, err := q.Exec(ctx, `insert into pgwaltz.name as k (schema_name, table_name, due) select distinct s, t, true from unnest($1::text[], $2::text[]) as u(s, t) order by 1, 2
on conflict (schema_name, table_name) do update set due = true`, schemas, names)
	if err != nil {
		return fmt.Errorf("note tables to be copied: %w", err)
	}
	return nil
}

// Due lists the tables of SetDue that are not settled.
func Due(ctx context.Context, q Querier) ([]wal.RelationName, error) {
	rows, err := q.Query(ctx, `select schema_name, table_name from pgwaltz.name where due order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read tables to be copied: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return nil, fmt.Errorf("read tables to be copied: %w", err)
	}
	return list, nil
}

// Settle notes that the copy of a table was asked for.
func Settle(ctx context.Context, q Querier, table wal.RelationName) error {
	if _, err := q.Exec(ctx, `update pgwaltz.name set due = false where schema_name = $1 and table_name = $2`, table.Schema, table.Name); err != nil {
		return fmt.Errorf("note the copy of %s: %w", table, err)
	}
	return nil
}

// Published returns the tables that were published, with their OIDs, as SetPublished was told last.
func Published(ctx context.Context, q Querier) (map[wal.RelationName]uint32, error) {
	rows, err := q.Query(ctx, `select schema_name, table_name, published::int8 from pgwaltz.name where published <> 0`)
	if err != nil {
		return nil, fmt.Errorf("read which tables were published: %w", err)
	}
	out := map[wal.RelationName]uint32{}
	var n wal.RelationName
	var oid int64
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &oid}, func() error { out[n] = uint32(oid); return nil }); err != nil {
		return nil, fmt.Errorf("read which tables were published: %w", err)
	}
	return out, nil
}

// SetPublished notes which tables are published.
func SetPublished(ctx context.Context, q Querier, tables map[wal.RelationName]uint32) error {
	var list []wal.RelationName
	var oids []int64
	for n, oid := range tables {
		list, oids = append(list, n), append(oids, int64(oid))
	}
	schemas, names := split(list)
	_, err := q.Exec(ctx, `with now as materialized (
  select s, t, o::oid as o, c.relreplident = 'f' as f from unnest($1::text[], $2::text[], $3::int8[]) as u(s, t, o) left join pg_catalog.pg_class c on c.oid = o::oid
), gone as (
  update pgwaltz.name k set published = 0 where published <> 0 and not exists (select from now where s = k.schema_name and t = k.table_name)
)
insert into pgwaltz.name as k (schema_name, table_name, table_oid, published, identity_full) select s, t, o, o, coalesce(f, false) from now
where not exists (select from pgwaltz.name k where k.schema_name = s and k.table_name = t and k.published = o and k.identity_full is not distinct from coalesce(f, k.identity_full))
on conflict (schema_name, table_name) do update set published = excluded.published, identity_full = excluded.identity_full`, schemas, names, oids)
	if err != nil {
		return fmt.Errorf("note which tables are published: %w", err)
	}
	return nil
}

// LeftOut returns the table of which changes were left out, and why; empty for none.
func LeftOut(ctx context.Context, q Querier) (n wal.RelationName, why string, err error) {
	rows, err := q.Query(ctx, `select schema_name, table_name, left_out from pgwaltz.name where left_out is not null limit 1`)
	if err != nil {
		return n, "", fmt.Errorf("read what was left out: %w", err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &why}, func() error { return nil }); err != nil {
		return n, "", fmt.Errorf("read what was left out: %w", err)
	}
	return n, why, nil
}

// SetLeftOut notes a table of which changes were left out, and why, in place of any other; an empty
// name for none.
func SetLeftOut(ctx context.Context, q Querier, n wal.RelationName, why string) error {
	_, err := q.Exec(ctx, `with gone as (
  update pgwaltz.name set left_out = null where left_out is not null and (schema_name, table_name) is distinct from ($1, $2)
)
insert into pgwaltz.name as k (schema_name, table_name, left_out) select $1, $2, $3 where $2 <> ''
on conflict (schema_name, table_name) do update set left_out = excluded.left_out`, n.Schema, n.Name, why)
	if err != nil {
		return fmt.Errorf("note what was left out: %w", err)
	}
	return nil
}

func split(tables []wal.RelationName) (schemas, names []string) {
	schemas, names = []string{}, []string{}
	for _, n := range tables {
		schemas, names = append(schemas, n.Schema), append(names, n.Name)
	}
	return schemas, names
}
