package apply

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// rowStamp is the stamp of a row whose table has no column to hold it.
type rowStamp struct {
	at     wal.Micros
	origin string
	lsn    wal.LSN // local position at which it was written
}

// rowStampUpsert writes stamps, set-based. A stamp only ever rises.
const rowStampUpsert = `insert into pgwaltz.row_stamp as t (relation, key, generation, version, updated_at, origin, lsn)
select u.r, u.k, u.g, u.v, u.t, $7, u.p::pg_lsn
from unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::text[]) as u(r, k, g, v, t, p)
on conflict (relation, key) do update
set generation = excluded.generation, version = excluded.version, updated_at = excluded.updated_at,
    origin = excluded.origin, lsn = excluded.lsn, touched_at = pg_catalog.now()
where (t.generation, t.updated_at) < (excluded.generation, excluded.updated_at)`

func findRowStamps(ctx context.Context, q querier, rel wal.RelationName, keys []string) (map[string]rowStamp, error) {
	rows, err := q.Query(ctx, `select key, updated_at, origin, lsn::text from pgwaltz.row_stamp
where relation = $1 and key = any($2::text[])`, rel.String(), keys)
	if err != nil {
		return nil, fmt.Errorf("find stamps of rows of %s: %w", rel, err)
	}
	defer rows.Close()
	found := make(map[string]rowStamp, len(keys))
	for rows.Next() {
		var key, lsn string
		var at int64
		var s rowStamp
		if err := rows.Scan(&key, &at, &s.origin, &lsn); err != nil {
			return nil, fmt.Errorf("find stamps of rows of %s: %w", rel, err)
		}
		s.at = wal.Micros(at)
		if s.lsn, err = wal.ParseLSN(lsn); err != nil {
			return nil, fmt.Errorf("find stamps of rows of %s: %w", rel, err)
		}
		found[key] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find stamps of rows of %s: %w", rel, err)
	}
	return found, nil
}
