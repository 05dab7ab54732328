package parked

import (
	"context"
	"errors"
	"fmt"

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

// Cut removes the rows of an origin's own database that wait, written up to a position, because the origin truncated their table there: that is told by its
// number, table, where it and that of what waits are known, so that it may have been renamed in between, and else by its name. Deletes
// stay. It returns how many it has removed. What has been removed and then set aside once more, by a redelivery, is removed by that of the truncate.
func Cut(ctx context.Context, q Querier, origin string, rel wal.RelationName, table uint32, at wal.LSN) (int64, error) {
	tag, err := q.Exec(ctx, `delete from pgwaltz.parked where origin = $1 and op <> 'delete' and commit_lsn <= $4::pg_lsn
  and case when $5::int8 = 0 or table_oid = 0 then schema_name = $2 and table_name = $3 else table_oid = $5::int8::oid end`,
		origin, rel.Schema, rel.Name, at.String(), int64(table))
	if err != nil {
		return 0, fmt.Errorf("remove parked changes of truncated rows: %w", err)
	}
	return tag.RowsAffected(), nil
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
