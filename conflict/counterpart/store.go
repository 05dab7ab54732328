package counterpart

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Schema makes the table of counterparts. theirs is the ID of a column of the origin (wal.ColumnID), table_oid and num are the
// column here; with the number 0 (Former), the table that theirs stood for before. name is what the origin calls it by the newest description of its table that has come from there, empty
// when the column is gone there. It may be run again.
const Schema = `create table if not exists pgwaltz.counterpart (
  origin    text not null,
  theirs    bigint not null,
  table_oid oid not null,
  num       smallint not null,
  name      text collate "C" not null,
  primary key (origin, theirs)
)`

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Adopt forgets all counterparts: the numbers are those of another server. Columns are matched by their names then, as they come.
func Adopt(ctx context.Context, q Querier) error {
	if _, err := q.Exec(ctx, `delete from pgwaltz.counterpart`); err != nil {
		return fmt.Errorf("forget counterparts of columns: %w", err)
	}
	return nil
}

// ForgetSQL forgets the counterparts of an origin, whose database is on another server now.
const ForgetSQL = `delete from pgwaltz.counterpart where origin = $1`

// pruneSQL forgets columns of tables that are gone here, and of tables of the origin before the newest maxTables that stood for
// the same one. $1 is the origin, $2 maxTables.
const pruneSQL = `delete from pgwaltz.counterpart k using (
  select table_oid as o, theirs >> 16 as t, pg_catalog.row_number() over (partition by table_oid order by theirs >> 16 desc) as n
  from pgwaltz.counterpart where origin = $1 group by table_oid, theirs >> 16
) as old where k.origin = $1 and k.table_oid = old.o and k.theirs >> 16 = old.t
  and (old.n > $2 or not exists (select from pg_catalog.pg_class c where c.oid = old.o))`

// Load reads what is stored of an origin, in place of what is known. What nothing needs any more is deleted first.
func (m *Map) Load(ctx context.Context, q Querier, origin string) error {
	if _, err := q.Exec(ctx, pruneSQL, origin, maxTables); err != nil {
		return fmt.Errorf("forget counterparts of columns: %w", err)
	}
	rows, err := q.Query(ctx, `select theirs, table_oid::int8, num, name from pgwaltz.counterpart where origin = $1`, origin)
	if err != nil {
		return fmt.Errorf("read counterparts of columns: %w", err)
	}
	var list []Column
	var theirs, table int64
	var c Column
	if _, err := pgx.ForEachRow(rows, []any{&theirs, &table, &c.Num, &c.Name}, func() error {
		c.Theirs, c.Table = uint64(theirs), uint32(table)
		list = append(list, c)
		return nil
	}); err != nil {
		return fmt.Errorf("read counterparts of columns: %w", err)
	}
	m.replace(list)
	return nil
}

// Store writes columns in the transaction of q; Settle is called when that has committed.
func Store(ctx context.Context, q Querier, origin string, columns []Column) error {
	if len(columns) == 0 {
		return nil
	}
	var theirs, tables []int64
	var nums []int16
	var names []string
	for _, c := range columns {
		theirs, tables, nums, names = append(theirs, int64(c.Theirs)), append(tables, int64(c.Table)), append(nums, c.Num), append(names, c.Name)
	}
	_, err := q.Exec(ctx, `insert into pgwaltz.counterpart as k (origin, theirs, table_oid, num, name)
select distinct on (i) $1, i, t::oid, n, s from unnest($2::int8[], $3::int8[], $4::int2[], $5::text[]) as u(i, t, n, s) order by i
on conflict (origin, theirs) do update set table_oid = excluded.table_oid, num = excluded.num, name = excluded.name`, origin, theirs, tables, nums, names)
	if err != nil {
		return fmt.Errorf("note counterparts of columns: %w", err)
	}
	return nil
}

// Tables lists the tables of this database of which changes have come from other regions.
func Tables(ctx context.Context, q Querier) ([]int64, error) {
	rows, err := q.Query(ctx, `select distinct table_oid::int8 from pgwaltz.counterpart where num <> 0`)
	if err != nil {
		return nil, fmt.Errorf("read pgwaltz.counterpart: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read pgwaltz.counterpart: %w", err)
	}
	return out, nil
}
