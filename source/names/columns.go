package names

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The WAL describes a table by the names of its columns, and a name may pass from one column to another. Which one it
// stood for at a position of the WAL is told from pgwaltz.naming: every definition of a table that was seen, and when.

// ColumnSchema makes the table of what columns were called. columns are the number, the name and the OID of the type of each, and whether it is
// generated, in the order of the numbers. A change of a transaction that committed at seen_from or later has this definition or one that came after it; one that
// committed at not_before or earlier has one that came before. The row of the table 0 has as not_before the position in front of the
// last look at all tables. It may be run again.
const ColumnSchema = `create table if not exists pgwaltz.naming (
  table_oid  oid not null,
  seen_from  pg_lsn not null,
  not_before pg_lsn not null,
  columns    jsonb not null,
  seen_at    timestamptz not null default now(),
  primary key (table_oid, seen_from)
)`

// noteSQL notes the definitions of tables that are not the last ones known; $1 is one table, or 0 for all. It stands in a statement of its own: the
// position behind its snapshot is taken within it. Where a generated column has become a plain one, other regions may have had it as a plain one before, and nothing
// for it from here: then the table is to be copied (SetDue).
const noteSQL = `with now as materialized (
  select c.oid as o, n.nspname::text as s, c.relname::text as t,
    coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attnum, a.attname, a.atttypid::int8, a.attgenerated <> '') order by a.attnum)
    from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as d
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgwaltz') and ($1::int8 = 0 or c.oid = $1::int8::oid)
), last as (
  select distinct on (table_oid) table_oid, columns from pgwaltz.naming where table_oid <> 0 and ($1::int8 = 0 or table_oid = $1::int8::oid) order by table_oid, seen_from desc
), other as materialized (
  select o, s, t, d, columns from now left join last on table_oid = o where columns is distinct from d
), plain as (
  insert into pgwaltz.name as k (schema_name, table_name, due) select s, t, true from other
  where exists (select from pg_catalog.jsonb_array_elements(columns) as was(c) join pg_catalog.jsonb_array_elements(d) as became(c) on was.c -> 0 = became.c -> 0
    where was.c -> 3 = 'true' and became.c -> 3 = 'false')
  on conflict (schema_name, table_name) do update set due = true
)
insert into pgwaltz.naming (table_oid, seen_from, not_before, columns)
select o, pg_catalog.pg_current_wal_insert_lsn(),
  case when columns is null then '0/0' else coalesce((select not_before from pgwaltz.naming where table_oid = 0), '0/0') end, d
from other
on conflict do nothing`

// lookedSQL moves the position of the look at all tables, and forgets tables that are gone for long; $1 is the position.
const lookedSQL = `with old as (
  delete from pgwaltz.naming k where table_oid <> 0 and seen_at < pg_catalog.now() - $2::interval and not exists (select from pg_catalog.pg_class c where c.oid = k.table_oid)
)
insert into pgwaltz.naming as k (table_oid, seen_from, not_before, columns) values (0, '0/0', $1::text::pg_lsn, '[]')
on conflict (table_oid, seen_from) do update set not_before = excluded.not_before where k.not_before + 65536 < excluded.not_before or k.not_before > excluded.not_before`

// LookColumns notes what the columns of all tables are called now.
func LookColumns(ctx context.Context, q Querier) error {
	before, err := insertPosition(ctx, q)
	if err == nil {
		_, err = q.Exec(ctx, noteSQL, 0)
	}
	if err == nil {
		_, err = q.Exec(ctx, lookedSQL, before.String(), keep)
	}
	if err != nil {
		return fmt.Errorf("note what columns are called: %w", err)
	}
	return nil
}

func insertPosition(ctx context.Context, q Querier) (wal.LSN, error) {
	rows, err := q.Query(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`)
	if err != nil {
		return 0, err
	}
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	return wal.ParseLSN(text)
}

// AdoptColumns forgets what columns were called: this is another server than it was seen on.
func AdoptColumns(ctx context.Context, q Querier) error {
	if _, err := q.Exec(ctx, `delete from pgwaltz.naming`); err != nil {
		return fmt.Errorf("forget what columns were called: %w", err)
	}
	return nil
}

// naming is one definition of a table.
type naming struct {
	from, notBefore wal.LSN
	columns         []named
}

type named struct {
	num       int16
	name      string
	oid       uint32
	generated bool
}

// Number sets the ID of all columns of a relation, or of none where two answers are possible, or no answer. table is its OID, and at where
// the transaction commits whose changes it describes. Where it sets none, again is a position from which on asking
// may help.
func Number(ctx context.Context, q Querier, rel *wal.Relation, table uint32, at wal.LSN) (again wal.LSN, err error) {
	// Mostly the last definition known is the present one, and there is nothing to note.
	list, noted, err := namings(ctx, q, table)
	if err != nil {
		return 0, fmt.Errorf("read what columns of %s were called: %w", rel, err)
	}
	if noted {
		if ids, known := choose(list, rel, table, at); known {
			number(rel, ids)
			return 0, nil
		}
	}
	if _, err := q.Exec(ctx, noteSQL, int64(table)); err != nil {
		return 0, fmt.Errorf("note what columns of %s are called: %w", rel, err)
	}
	if again, err = insertPosition(ctx, q); err != nil {
		return 0, fmt.Errorf("read what columns of %s were called: %w", rel, err)
	}
	if list, _, err = namings(ctx, q, table); err != nil {
		return 0, fmt.Errorf("read what columns of %s were called: %w", rel, err)
	}
	ids, known := choose(list, rel, table, at)
	if !known {
		if last := len(list) - 1; last >= 0 && at < list[last].from {
			again = list[last].from // from there on it is the last one
		}
		return again, nil
	}
	number(rel, ids)
	return 0, nil
}

func number(rel *wal.Relation, ids []uint64) {
	for i := range rel.Columns {
		rel.Columns[i].ID = ids[i]
	}
}

// namingsSQL reads the definitions known of the table $1, and whether each is the present one, as noteSQL compares it.
const namingsSQL = `select seen_from::text, not_before::text, columns::text, coalesce(columns = (
  select coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attnum, a.attname, a.atttypid::int8, a.attgenerated <> '') order by a.attnum)
    from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]')
  from pg_catalog.pg_class c where c.oid = $1::int8::oid and c.relkind in ('r', 'p')), false)
from pgwaltz.naming where table_oid = $1::int8::oid order by seen_from`

// namings reads the definitions that are known of a table, the oldest first. noted says that the last of them is what the table is now.
func namings(ctx context.Context, q Querier, table uint32) (list []naming, noted bool, err error) {
	rows, err := q.Query(ctx, namingsSQL, int64(table))
	if err != nil {
		return nil, false, err
	}
	list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (n naming, err error) {
		var from, notBefore, columns string
		if err = r.Scan(&from, &notBefore, &columns, &noted); err != nil {
			return n, err
		}
		var list [][4]json.RawMessage
		if err = json.Unmarshal([]byte(columns), &list); err != nil {
			return n, err
		}
		n.columns = make([]named, len(list))
		for i, c := range list {
			if err = errors.Join(json.Unmarshal(c[0], &n.columns[i].num), json.Unmarshal(c[1], &n.columns[i].name), json.Unmarshal(c[2], &n.columns[i].oid), json.Unmarshal(c[3], &n.columns[i].generated)); err != nil {
				return n, err
			}
		}
		if n.from, err = wal.ParseLSN(from); err != nil {
			return n, err
		}
		n.notBefore, err = wal.ParseLSN(notBefore)
		return n, err
	})
	return list, noted, err
}

// choose finds the definition that a relation has at a position. First those are looked at that are possible there, and first those with no other
// columns than the relation: a publication may leave some out. known is false unless one fits, or all that fit say the same.
func choose(list []naming, rel *wal.Relation, table uint32, at wal.LSN) (ids []uint64, known bool) {
	for _, possible := range []bool{true, false} {
		for _, whole := range []bool{true, false} {
			for i := range list {
				n := &list[i]
				if possible && (n.notBefore > 0 && at <= n.notBefore || i+1 < len(list) && at >= list[i+1].from) || whole && n.sent() != rel.Sent() {
					continue
				}
				is := n.ids(rel, table)
				switch {
				case is == nil:
				case ids == nil:
					ids = is
				case !slices.Equal(ids, is):
					return nil, false
				}
			}
			if ids != nil {
				return ids, true
			}
		}
	}
	return nil, false
}

// sent is the number of columns that the WAL holds.
func (n *naming) sent() int {
	sent := 0
	for _, c := range n.columns {
		if !c.generated {
			sent++
		}
	}
	return sent
}

// ids are those of the columns of a relation in a definition; nil where it has other columns. The WAL has them in the order of
// their numbers, but for the computed ones at the end.
func (n *naming) ids(rel *wal.Relation, table uint32) []uint64 {
	out := make([]uint64, 0, len(rel.Columns))
	at := 0
	for i := range rel.Columns {
		c := &rel.Columns[i]
		if i >= rel.Sent() {
			at = 0
		}
		for at < len(n.columns) && n.columns[at].name != c.Name {
			at++
		}
		if at == len(n.columns) || n.columns[at].oid != c.OID {
			return nil
		}
		out = append(out, wal.ColumnID(table, n.columns[at].num))
	}
	return out
}

// CalledColumns tells what the columns of tables are called now, by their numbers; tables that are gone are left out.
func CalledColumns(ctx context.Context, q Querier, tables []uint32) (map[uint32]map[int16]string, error) {
	oids := make([]int64, len(tables))
	for i, t := range tables {
		oids[i] = int64(t)
	}
	rows, err := q.Query(ctx, `select c.oid::int8, a.attnum, a.attname::text from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.oid = any($1::int8[]::oid[]) and c.relkind in ('r', 'p')`, oids)
	if err != nil {
		return nil, fmt.Errorf("read names of columns: %w", err)
	}
	out := map[uint32]map[int16]string{}
	var oid int64
	var num int16
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &num, &name}, func() error {
		t := uint32(oid)
		if out[t] == nil {
			out[t] = map[int16]string{}
		}
		out[t][num] = name
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read names of columns: %w", err)
	}
	return out, nil
}
