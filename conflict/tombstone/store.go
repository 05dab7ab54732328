package tombstone

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Querier is the part of a pgx connection or transaction that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Set is the statement that writes graves, set-based: arrays of relation, key, generation,
// version, time in microseconds, live flag and position, then one origin. What stands there
// is replaced: the writer has locked it (Find) and decided. Only of two tombstones the higher
// stays, because two appliers may bury a key that neither has found.
const Set = `insert into pgwaltz.tombstone as t (relation, key, generation, version, updated_at, live, origin, lsn)
select u.r, u.k, u.g, u.v, u.t, u.l, $8, u.p::pg_lsn
from unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::bool[], $7::text[]) as u(r, k, g, v, t, l, p)
on conflict (relation, key) do update
set generation = excluded.generation, version = excluded.version, updated_at = excluded.updated_at,
    live = excluded.live, origin = excluded.origin, lsn = excluded.lsn, deleted_at = pg_catalog.now()
where t.live or excluded.live or (t.generation, t.version, t.updated_at) < (excluded.generation, excluded.version, excluded.updated_at)`

// Unset is the statement that removes the graves of rows that live in their first
// generation: arrays of relation and key.
const Unset = `delete from pgwaltz.tombstone as t using unnest($1::text[], $2::text[]) as u(r, k)
where t.relation = u.r and t.key = u.k`

// Entry is one grave as the table holds it.
type Entry struct {
	Relation wal.RelationName
	Key      string
	Stamp    wal.Stamp
	Live     bool // a row of the next generation lives
	Origin   string
	LSN      wal.LSN
	Deleted  time.Time
}

// Load fills the index from the table. Called at start and after every loss of the local
// server, when graves of transactions that were never made durable may be gone.
func Load(ctx context.Context, q Querier, x *Index) error {
	x.Reset()
	rows, err := q.Query(ctx, `select relation, key, generation, lsn::text from pgwaltz.tombstone`)
	if err != nil {
		return fmt.Errorf("load tombstones: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var rel, key, lsn string
		var gen int64
		if err := rows.Scan(&rel, &key, &gen, &lsn); err != nil {
			return fmt.Errorf("load tombstones: %w", err)
		}
		at, err := wal.ParseLSN(lsn)
		if err != nil {
			return fmt.Errorf("load tombstones: %w", err)
		}
		x.Put(relationName(rel), []byte(key), Grave{Generation: uint32(gen), LSN: at})
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("load tombstones: %w", err)
	}
	return nil
}

func relationName(s string) wal.RelationName {
	schema, name, _ := strings.Cut(s, ".")
	return wal.RelationName{Schema: schema, Name: name}
}

// Find reads the graves of the given keys of one relation and locks them until the end of the
// transaction.
func Find(ctx context.Context, q Querier, rel wal.RelationName, keys []string) (map[string]Entry, error) {
	rows, err := q.Query(ctx, `select key, generation, version, updated_at, live, origin, lsn::text, deleted_at
from pgwaltz.tombstone where relation = $1 and key = any($2::text[]) order by key for update`, rel.String(), keys)
	if err != nil {
		return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
	}
	defer rows.Close()
	found := map[string]Entry{}
	for rows.Next() {
		e := Entry{Relation: rel}
		var gen, ver, at int64
		var lsn string
		if err := rows.Scan(&e.Key, &gen, &ver, &at, &e.Live, &e.Origin, &lsn, &e.Deleted); err != nil {
			return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
		}
		e.Stamp = wal.Stamp{Generation: uint32(gen), Version: ver, UpdatedAt: wal.Micros(at)}
		if e.LSN, err = wal.ParseLSN(lsn); err != nil {
			return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
		}
		found[e.Key] = e
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find tombstones of %s: %w", rel, err)
	}
	return found, nil
}

// Generations reads the generations of the graves of the given keys, without locks.
func Generations(ctx context.Context, q Querier, rel wal.RelationName, keys []string) (map[string]uint32, error) {
	rows, err := q.Query(ctx, `select key, generation from pgwaltz.tombstone where relation = $1 and key = any($2::text[])`, rel.String(), keys)
	if err != nil {
		return nil, fmt.Errorf("read generations of %s: %w", rel, err)
	}
	defer rows.Close()
	found := map[string]uint32{}
	for rows.Next() {
		var key string
		var gen int64
		if err := rows.Scan(&key, &gen); err != nil {
			return nil, fmt.Errorf("read generations of %s: %w", rel, err)
		}
		found[key] = uint32(gen)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read generations of %s: %w", rel, err)
	}
	return found, nil
}

// Collect removes graves that no peer can need any more: of dead keys, older than minAge,
// and written at a local position that every peer has applied (passed). At most limit are
// removed in one call. It returns how many went; the index forgets them too.
func Collect(ctx context.Context, q Querier, x *Index, minAge time.Duration, passed wal.LSN, limit int) (int, error) {
	rows, err := q.Query(ctx, `delete from pgwaltz.tombstone where ctid = any(array(
  select ctid from pgwaltz.tombstone
  where not live and deleted_at < pg_catalog.now() - $1::interval and lsn <= $2::text::pg_lsn limit $3))
returning relation, key`, minAge, passed.String(), limit)
	if err != nil {
		return 0, fmt.Errorf("collect tombstones: %w", err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var rel, key string
		if err := rows.Scan(&rel, &key); err != nil {
			return n, fmt.Errorf("collect tombstones: %w", err)
		}
		x.Remove(relationName(rel), []byte(key))
		n++
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("collect tombstones: %w", err)
	}
	return n, nil
}
