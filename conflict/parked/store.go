package parked

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// elsewhere joins what waits (p) with the present name (t) of the table that it was parked for, where that is another one.
const elsewhere = `from (select c.oid, n.nspname::text as s, c.relname::text as n from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace) as t
where t.oid = p.table_oid and (t.s, t.n) is distinct from (p.schema_name, p.table_name)
  and not exists (select from pgwaltz.parked o where o.schema_name = t.s and o.table_name = t.n and o.key = p.key)`

// namesake is the table that has the name by which a change waits.
const namesake = `(select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = p.schema_name and c.relname = p.table_name and c.relkind in ('r', 'p'))`

// Follow gives the changes whose table was renamed, or moved to another schema, its new name, and puts
// them into the index under that. Where something waits under the new name and the same key already,
// they stay as they are; and so do those of other regions than self where another table has the old name now (Displaced). It returns the
// tables that any of them belong to.
func Follow(ctx context.Context, q Querier, self string, x *Index) ([]wal.RelationName, error) {
	return follow(ctx, q, x, `update pgwaltz.parked p set schema_name = t.s, table_name = t.n
`+elsewhere+` and p.sqlstate <> '`+ApartState+`' and (p.origin = $1 or not exists `+namesake+`)
returning p.schema_name, p.table_name, p.key`, self)
}

// Displaced returns changes of other regions than self whose table has another name now while another table has taken the one by which they wait: two
// have swapped their names, or one was replaced by a copy. Which of the two a change belongs to only its origin knows. It returns
// those behind an id, in the order of their ids, at most limit of them and pageBytes in all.
func Displaced(ctx context.Context, q Querier, self string, after int64, limit int) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from (
  select p.*, sum(octet_length(p.event)) over (order by p.id) - octet_length(p.event) as before from (
    select p.* `+strings.Replace(elsewhere, "from (", "from pgwaltz.parked p, (", 1)+` and p.origin <> $1 and p.id > $2 and exists `+namesake+` order by p.id limit $3) as p) as p
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
	return follow(ctx, q, x, `update pgwaltz.parked p set schema_name = t.s, table_name = t.n, wanted = true
`+elsewhere+` and p.id = any($1::int8[])
returning p.schema_name, p.table_name, p.key`, ids)
}

// Stay makes changes with the given ids those of the tables that have the names by which they wait. They are tried again.
func Stay(ctx context.Context, q Querier, ids []int64) error {
	if _, err := q.Exec(ctx, `update pgwaltz.parked p set table_oid = coalesce(`+namesake+`, 0), wanted = true where id = any($1::int8[])`, ids); err != nil {
		return fmt.Errorf("keep parked changes with the names of their tables: %w", err)
	}
	return nil
}

// follow runs a statement that renames changes and returns their new names and keys.
func follow(ctx context.Context, q Querier, x *Index, sql string, args ...any) ([]wal.RelationName, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("follow renamed tables: %w", err)
	}
	var name wal.RelationName
	var key string
	var tables []wal.RelationName
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &key}, func() error {
		x.Put(name, key)
		if !slices.Contains(tables, name) {
			tables = append(tables, name)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("follow renamed tables: %w", err)
	}
	return tables, nil
}

// Adopt makes changes known by the tables of this server, by their names, when the database was on another
// one before: a number from there may belong to any table here, as it does behind pg_dump.
func Adopt(ctx context.Context, q Querier) error {
	_, err := q.Exec(ctx, `update pgwaltz.parked p set table_oid = coalesce((
  select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname::text = p.schema_name and c.relname::text = p.table_name and c.relkind in ('r', 'p')), 0)
where table_oid <> 0`)
	if err != nil {
		return fmt.Errorf("adopt parked changes: %w", err)
	}
	return nil
}

// FollowNames gives changes that were set aside because their table was not here the name that the
// table has now: was and is are names of the same tables, and no table has one of was any more. A change
// that was under way while both regions renamed its table, or its schema, comes by the old name. It
// returns the tables that any of them belong to. What waits under the new name and the same key already
// stays in front: the other one follows when that is gone. With an origin, only its changes follow, to tables that are here.
func FollowNames(ctx context.Context, q Querier, origin string, was, is []wal.RelationName, x *Index) ([]wal.RelationName, error) {
	from, to := [2][]string{}, [2][]string{}
	for i := range was {
		from[0], from[1] = append(from[0], was[i].Schema), append(from[1], was[i].Name)
		to[0], to[1] = append(to[0], is[i].Schema), append(to[1], is[i].Name)
	}
	return follow(ctx, q, x, `update pgwaltz.parked p set schema_name = u.s2, table_name = u.t2
from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as u(s, t, s2, t2)
where p.schema_name = u.s and p.table_name = u.t and p.table_oid = 0 and ($5 = '' or p.origin = $5 and exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = u.s2 and c.relname = u.t2 and c.relkind in ('r', 'p')))
  and not exists (select from pgwaltz.parked o where o.schema_name = u.s2 and o.table_name = u.t2 and o.key = p.key)
  and not exists (select from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as v(s, t, s2, t2) join pgwaltz.parked o on o.schema_name = v.s and o.table_name = v.t
    where v.s2 = u.s2 and v.t2 = u.t2 and o.table_oid = 0 and o.key = p.key and o.id < p.id and ($5 = '' or o.origin = $5))
returning p.schema_name, p.table_name, p.key`, from[0], from[1], to[0], to[1], origin)
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

const columns = `id, origin, schema_name, table_name, table_oid::int8, key, kind, born, event, coalesce(sqlstate, ''), coalesce(message, ''), attempts, held, denied`

func scan(rows pgx.Rows) ([]*Change, error) {
	defer rows.Close()
	var out []*Change
	for rows.Next() {
		c := &Change{}
		var kind int16
		var born, held bool
		var event []byte
		var table int64
		var name wal.RelationName
		if err := rows.Scan(&c.ID, &c.Origin, &name.Schema, &name.Name, &table, &c.Key, &kind, &born, &event, &c.State, &c.Message, &c.Attempts, &held, &c.Denied); err != nil {
			return nil, fmt.Errorf("read parked changes: %w", err)
		}
		c.Kind, c.Table = conflict.EventKind(kind), uint32(table)
		if err := c.decode(event, born); err != nil {
			return nil, err
		}
		c.Waiting.Held, c.Waiting.Unread = held, c.Unread()
		c.rename(name)
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return out, nil
}

// FindSQL reads and locks what waits under keys of a table; its parameters are the table's schema,
// its name, and an array of keys. A key is looked up by index, one after the other, in the order of
// the keys: planned while the table was empty, key = any(array) read all that waits for the table,
// each time. The keys keep the collation of the database: the columns have "C", which decides.
const FindSQL = `select ` + columns + `
from (select k from unnest($3::text[]) as u(k) group by k order by k collate "C") as u
cross join lateral (select * from pgwaltz.parked where schema_name = $1 and table_name = $2 and key = u.k for update) as p`

// Find returns what waits under the given keys of a table, by key. The rows are locked: what
// the caller decides about them stays true until its transaction ends.
func Find(ctx context.Context, q Querier, rel wal.RelationName, keys []string) (map[string]*Change, error) {
	rows, err := q.Query(ctx, FindSQL, rel.Schema, rel.Name, keys)
	if err != nil {
		return nil, fmt.Errorf("find parked changes: %w", err)
	}
	list, err := scan(rows)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*Change, len(list))
	for _, c := range list {
		found[c.Key] = c
	}
	return found, nil
}

// putBytes bounds one statement of Put.
const putBytes = 4 << 20

const putSQL = `insert into pgwaltz.parked as p (origin, schema_name, table_name, table_oid, key, commit_lsn, kind, born, held, generation, version, updated_at, op, event, row, sqlstate, message, definition)
select u.o, $1, $2, u.oid::oid, u.k, u.l::pg_lsn, u.kind, u.born, u.h, u.g, u.v, u.t, u.op, u.e, u.r::jsonb, u.s, u.m, u.d
from unnest($3::text[], $4::text[], $5::text[], $6::int2[], $7::bool[], $8::int8[], $9::int8[], $10::int8[], $11::text[], $12::bytea[], $13::text[], $14::text[], $15::text[], $16::int8[], $17::text[], $19::bool[])
  as u(o, k, l, kind, born, g, v, t, op, e, r, s, m, oid, d, h)
on conflict (schema_name, table_name, key) do update
set origin = excluded.origin, table_oid = excluded.table_oid, commit_lsn = excluded.commit_lsn, kind = excluded.kind, born = excluded.born, held = excluded.held,
    generation = excluded.generation, version = excluded.version, updated_at = excluded.updated_at,
    op = excluded.op, event = excluded.event, row = excluded.row, sqlstate = excluded.sqlstate, message = excluded.message, definition = excluded.definition,
    parked_at = pg_catalog.now(), retried_at = null, attempts = 0, denied = '{}'
where p.id = any($18::int8[]) or p.key like '@%'`

// ErrRace says that another applier has set a change of the same key aside since the caller looked.
var ErrRace = errors.New("another change of the key was set aside meanwhile")

// Put writes changes of one table, each of another key. The change that stands under the key is
// replaced when it is the one with ID: the caller has found, locked and compared it (Find,
// conflict.Policy.Wait). ID 0 says that there was none. Errors: ErrRace, when there is one by now;
// the transaction has to be tried again.
func Put(ctx context.Context, q Querier, rel wal.RelationName, changes []Change) error {
	for len(changes) > 0 {
		n, size := 0, 0
		var origins, keys, lsns, ops, states, messages, definitions []string
		var kinds []int16
		var born, held []bool
		var gens, vers, ats, oids, found []int64
		var events [][]byte
		var images []*string
		for ; n < len(changes) && n < 2000 && size < putBytes; n++ {
			c := &changes[n]
			event, err := c.encode()
			if err != nil {
				return fmt.Errorf("park a change of %s: %w", rel, err)
			}
			w := &c.Waiting
			origins, keys, lsns = append(origins, c.Origin), append(keys, c.Key), append(lsns, c.Transaction.CommitLSN.String())
			kinds, born, held = append(kinds, int16(c.Kind)), append(born, w.Born), append(held, w.Held)
			gens, vers, ats = append(gens, int64(w.Stamp.Generation)), append(vers, w.Stamp.Version), append(ats, int64(w.Stamp.UpdatedAt))
			ops, events, images = append(ops, w.Op.String()), append(events, event), append(images, text(c.Row))
			states, messages, oids = append(states, c.State), append(messages, c.Message), append(oids, int64(c.Table))
			definitions, found = append(definitions, c.Definition), append(found, c.ID)
			size += len(event) + len(c.Row) + 256
		}
		tag, err := q.Exec(ctx, putSQL, rel.Schema, rel.Name, origins, keys, lsns, kinds, born, gens, vers, ats, ops, events, images, states, messages, oids, definitions, found, held)
		if err != nil {
			return fmt.Errorf("park %d changes of %s: %w", n, rel, err)
		}
		if tag.RowsAffected() != int64(n) {
			return fmt.Errorf("park %d changes of %s: %w", n, rel, ErrRace)
		}
		changes = changes[n:]
	}
	return nil
}

// DeleteSQL removes the changes with the ids $1.
const DeleteSQL = `delete from pgwaltz.parked where id = any($1::int8[])`

// StraysSQL notes that the origin $1 has begun anew, behind a gap that it admits: it may have been
// restored from an older state, and not hold any more what waits here. So it is held here.
const StraysSQL = `update pgwaltz.parked set held = true where origin = $1 and not held`

// Hold notes that changes are held here (conflict.Waiting.Held).
func Hold(ctx context.Context, q Querier, ids []int64) error {
	if _, err := q.Exec(ctx, `update pgwaltz.parked set held = true where id = any($1::int8[])`, ids); err != nil {
		return fmt.Errorf("hold parked changes: %w", err)
	}
	return nil
}

// Complete writes a change whose image was completed, and which is held from now on. The caller has found and locked it (Find).
func Complete(ctx context.Context, q Querier, c *Change) error {
	event, err := c.encode()
	if err != nil {
		return fmt.Errorf("complete a parked change: %w", err)
	}
	if _, err := q.Exec(ctx, `update pgwaltz.parked set event = $2, row = $3::jsonb, held = true where id = $1`, c.ID, event, text(c.Row)); err != nil {
		return fmt.Errorf("complete a parked change: %w", err)
	}
	return nil
}

// DenySQL notes that the region $2 does not hold what the changes with the ids $1 lack.
const DenySQL = `update pgwaltz.parked set denied = array_append(denied, $2::text) where id = any($1::int8[]) and $2::text <> all(denied)`

// Claim locks and returns those of the given changes of an origin that nobody else is dealing with, in
// the order of their ids. A change of another origin may have taken the place, and the id, of one since they were listed.
func Claim(ctx context.Context, q Querier, origin string, ids []int64) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from pgwaltz.parked where id = any($1::int8[]) and origin = $2 order by id for update skip locked`, ids, origin)
	if err != nil {
		return nil, fmt.Errorf("claim parked changes: %w", err)
	}
	return scan(rows)
}

// Read returns changes without locking them, in the order of their ids.
func Read(ctx context.Context, q Querier, ids []int64) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from pgwaltz.parked where id = any($1::int8[]) order by id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return scan(rows)
}

// OfState reads the oldest changes of an origin that wait under one state, without locking them,
// at most limit of them and pageBytes in all.
func OfState(ctx context.Context, q Querier, origin, state string, limit int) ([]*Change, error) {
	rows, err := q.Query(ctx, `select `+columns+` from (
  select p.*, sum(octet_length(p.event)) over (order by p.id) as size from pgwaltz.parked p where p.origin = $1 and p.sqlstate = $2) as p
where size <= $3 order by id limit $4`, origin, state, int64(pageBytes), limit)
	if err != nil {
		return nil, fmt.Errorf("read parked changes: %w", err)
	}
	return scan(rows)
}

// Any reports whether changes of a table wait whose id is below before.
func Any(ctx context.Context, q Querier, rel wal.RelationName, origin string, before int64) (bool, error) {
	rows, err := q.Query(ctx, `select 1 from pgwaltz.parked where origin = $1 and schema_name = $2 and table_name = $3 and id < $4 limit 1`,
		origin, rel.Schema, rel.Name, before)
	if err != nil {
		return false, fmt.Errorf("find parked changes: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return false, fmt.Errorf("find parked changes: %w", err)
	}
	return len(found) > 0, nil
}
