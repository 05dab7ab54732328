package parked

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What waits follows its table to another name. A statement moves at most followMost changes, leaves alone those that somebody else is dealing
// with, and is planned anew each time: a plan that was made while little waited compares each change with all others.

// followMost is how many changes one call moves: some 0.2 s.
const followMost = 5000

// free is a condition: nothing waits under the name in the columns s and t of u, and the key of a change (p). It looks up one key, whatever the plan.
const free = `(select o.id from pgwaltz.parked o where o.schema_name = u.s and o.table_name = u.t and o.key = p.key limit 1) is null`

// elsewhere joins what waits (p) with the present name (u) of the table that it was parked for, where that is another one.
const elsewhere = `from pgwaltz.parked p, (select c.oid, n.nspname::text as s, c.relname::text as t from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace) as u
where u.oid = p.table_oid and (u.s, u.t) is distinct from (p.schema_name, p.table_name) and ` + free + `
`

// namesake is the table that has the name by which a change waits.
const namesake = `(select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = p.schema_name and c.relname = p.table_name and c.relkind in ('r', 'p'))`

// Follow gives the changes whose table was renamed, or moved to another schema, its new name, and puts
// them into the index under that. Where something waits under the new name and the same key already,
// they stay as they are; and so do those of other regions than self where another table has the old name now (Displaced). It returns the
// tables that any of them belong to. With more, there may be others: it is called again.
func Follow(ctx context.Context, q Querier, self string, x *Index) (tables []wal.RelationName, more bool, err error) {
	return follow(ctx, q, x, "", nil, elsewhere+`and p.sqlstate <> '`+ApartState+`' and (p.origin = $1 or not exists `+namesake+`)`, self)
}

// Displaced returns changes of other regions than self whose table has another name now while another table has taken the one by which they wait: two
// have swapped their names, or one was replaced by a copy. Which of the two a change belongs to only its origin knows. It returns
// those behind an id, in the order of their ids, at most limit of them and pageBytes in all.
func Displaced(ctx context.Context, q Querier, self string, after int64, limit int) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from (
  select p.*, sum(octet_length(p.event)) over (order by p.id) - octet_length(p.event) as before from (
    select p.* `+elsewhere+`and p.origin <> $1 and p.id > $2 and exists `+namesake+` order by p.id limit $3) as p) as p
where before < $4 order by id`, self, after, limit, int64(pageBytes))
	if err != nil {
		return nil, fmt.Errorf("look for changes whose table gave its name away: %w", err)
	}
	return scan(rows)
}

// Namesakes returns the tables that have the names by which the changes with the given ids wait, by id.
func Namesakes(ctx context.Context, q Querier, ids []int64) (map[int64]uint32, error) {
	rows, err := q.Query(ctx, `select p.id, coalesce(`+namesake+`, 0)::int8 from pgwaltz.parked p where p.id = any($1::int8[])`, ids)
	if err != nil {
		return nil, fmt.Errorf("look for tables by their names: %w", err)
	}
	out := make(map[int64]uint32, len(ids))
	var id, table int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &table}, func() error { out[id] = uint32(table); return nil }); err != nil {
		return nil, fmt.Errorf("look for tables by their names: %w", err)
	}
	return out, nil
}

// FollowOnly is Follow for the changes with the given ids, whatever has their old name. They are tried again.
func FollowOnly(ctx context.Context, q Querier, ids []int64, x *Index) ([]wal.RelationName, error) {
	tables, _, err := follow(ctx, q, x, ", wanted = true", nil, elsewhere+`and p.id = any($1::int8[])`, ids)
	return tables, err
}

// Stay makes changes with the given ids those of the tables that have the names by which they wait. They are tried again.
func Stay(ctx context.Context, q Querier, ids []int64) error {
	if _, err := q.Exec(ctx, `update pgwaltz.parked p set table_oid = coalesce(`+namesake+`, 0), wanted = true where id = any($1::int8[])`, ids); err != nil {
		return fmt.Errorf("keep parked changes with the names of their tables: %w", err)
	}
	return nil
}

// follow gives new names to the changes (p) that from, with its arguments, joins with them (u.s, u.t), and returns these names. set, with its own, is what else is
// changed of them. Of changes that would come together under one key the oldest goes first; the others stay until it is gone. more says that there may be
// others to move.
func follow(ctx context.Context, q Querier, x *Index, set string, args []any, from string, which ...any) (tables []wal.RelationName, more bool, err error) {
	rows, err := q.Query(ctx, fmt.Sprintf(`select p.id, u.s, u.t, p.key %s order by p.id limit %d for update of p skip locked`, from, followMost), append([]any{pgx.QueryExecModeDescribeExec}, which...)...)
	if err != nil {
		return nil, false, fmt.Errorf("follow renamed tables: %w", err)
	}
	type place struct {
		name wal.RelationName
		key  string
	}
	seen := map[place]bool{}
	var ids []int64
	var names []wal.RelationName
	var id int64
	var at place
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&id, &at.name.Schema, &at.name.Name, &at.key}, func() error {
		if n++; !seen[at] {
			seen[at], ids, names = true, append(ids, id), append(names, at.name)
			x.Put(at.name, at.key)
		}
		return nil
	}); err != nil {
		return nil, false, fmt.Errorf("follow renamed tables: %w", err)
	}
	if len(ids) == 0 {
		return nil, false, nil
	}
	schemas, list := make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		schemas[i], list[i] = name.Schema, name.Name
		if !slices.Contains(tables, name) {
			tables = append(tables, name)
		}
	}
	if _, err := q.Exec(ctx, `update pgwaltz.parked p set schema_name = u.s, table_name = u.t`+set+` from unnest($1::int8[], $2::text[], $3::text[]) as u(id, s, t) where p.id = u.id`,
		append([]any{pgx.QueryExecModeDescribeExec, ids, schemas, list}, args...)...); err != nil {
		return nil, false, fmt.Errorf("follow renamed tables: %w", err)
	}
	return tables, n == followMost, nil
}

// FollowNames gives changes that were set aside because their table was not here the name that the
// table has now: was and is are names of the same tables, and no table has one of was any more. A change
// that was under way while both regions renamed its table, or its schema, comes by the old name. It
// returns the tables that any of them belong to. What waits under the new name and the same key already
// stays in front: the other one follows when that is gone. With an origin, only its changes follow, to tables that are here.
// With more, there may be others: it is called again.
func FollowNames(ctx context.Context, q Querier, origin string, was, is []wal.RelationName, x *Index) (tables []wal.RelationName, more bool, err error) {
	from, to := [2][]string{}, [2][]string{}
	for i := range was {
		from[0], from[1] = append(from[0], was[i].Schema), append(from[1], was[i].Name)
		to[0], to[1] = append(to[0], is[i].Schema), append(to[1], is[i].Name)
	}
	return follow(ctx, q, x, "", nil, `from pgwaltz.parked p, (select * from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as u(was_s, was_t, s, t)
  where $5 = '' or exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = u.s and c.relname = u.t and c.relkind in ('r', 'p'))) as u
where p.schema_name = u.was_s and p.table_name = u.was_t and p.table_oid = 0 and ($5 = '' or p.origin = $5) and `+free, from[0], from[1], to[0], to[1], origin)
}

// Nameless is a name of a table that is not here, and the origin whose changes came by it.
type Nameless struct {
	Origin string
	Name   wal.RelationName
}

// Homeless lists the names by which changes of other regions wait that no table here has, up to a limit: where there are more,
// others each time.
func Homeless(ctx context.Context, q Querier, self string, limit int) ([]Nameless, error) {
	rows, err := q.Query(ctx, `select origin, schema_name, table_name from pgwaltz.parked p where sqlstate = '42P01' and table_oid = 0 and origin <> $1
  and not exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = p.schema_name and c.relname = p.table_name and c.relkind in ('r', 'p'))
group by 1, 2, 3 order by pg_catalog.random() limit $2`, self, limit)
	if err != nil {
		return nil, fmt.Errorf("look for changes without a table: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (n Nameless, err error) {
		return n, r.Scan(&n.Origin, &n.Name.Schema, &n.Name.Name)
	})
	if err != nil {
		return nil, fmt.Errorf("look for changes without a table: %w", err)
	}
	return list, nil
}

// Unfit reports whether changes wait for the table to be there, or for columns of it, and were not tried since they are.
func Unfit(ctx context.Context, q Querier, table wal.RelationName) (bool, error) {
	rows, err := q.Query(ctx, `select exists (select from pgwaltz.parked where schema_name = $1 and table_name = $2 and sqlstate in ('42P01', '42703'))`, table.Schema, table.Name)
	if err != nil {
		return false, fmt.Errorf("look for changes that wait for %s: %w", table, err)
	}
	some, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("look for changes that wait for %s: %w", table, err)
	}
	return some, nil
}

// Awaited is a table here that changes of an origin wait for.
type Awaited struct {
	Origin string
	Table  uint32
}

// InState lists the tables for which changes of other regions than self wait under a state, up to a limit: where there are more, others each time.
func InState(ctx context.Context, q Querier, self, state string, limit int) ([]Awaited, error) {
	rows, err := q.Query(ctx, `select origin, table_oid::int8 from pgwaltz.parked where sqlstate = $1 and origin <> $2 and table_oid <> 0 group by 1, 2 order by pg_catalog.random() limit $3`, state, self, limit)
	if err != nil {
		return nil, fmt.Errorf("look for tables that changes wait for: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (n Awaited, err error) {
		var table int64
		err = r.Scan(&n.Origin, &table)
		n.Table = uint32(table)
		return n, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for tables that changes wait for: %w", err)
	}
	return list, nil
}
