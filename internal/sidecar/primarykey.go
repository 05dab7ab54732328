package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// primaryKeyTimeout bounds one look into the catalog.
const primaryKeyTimeout = 10 * time.Second

// primaryKey looks a table's primary key up for the decoder, in a session of its own: others
// may wait for locks. nil without an error means that the table has none; not to find out is
// an error, and the WAL is read again then.
func (s *Sidecar) primaryKey(schema, name string, cols []wal.Column) ([]int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), primaryKeyTimeout)
	defer cancel()
	var names []string
	var places []int
	var width int
	err := s.catalog.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `with col as (
  select a.attrelid, a.attnum, a.attname::text, row_number() over (order by a.attnum) as place
  from pg_catalog.pg_attribute a join pg_catalog.pg_class t on t.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = t.relnamespace
  where n.nspname = $1 and t.relname = $2 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
)
select coalesce(pg_catalog.array_agg(col.attname order by k.n), '{}'), coalesce(pg_catalog.array_agg(col.place::int order by k.n), '{}'),
  (select count(*)::int from col)
from pg_catalog.pg_index i cross join lateral pg_catalog.unnest(i.indkey[0:i.indnkeyatts-1]) with ordinality as k(att, n)
join col on col.attrelid = i.indrelid and col.attnum = k.att
where i.indisprimary`, schema, name).Scan(&names, &places, &width)
	})
	if err != nil {
		return nil, fmt.Errorf("look up primary key of %s.%s: %w", schema, name, err)
	}
	return keyPositions(names, places, width, cols), nil
}

// keyPositions finds the key's columns in a description from the WAL, which may be older than
// the catalog: by name, or where one was renamed since, by place.
func keyPositions(names []string, places []int, width int, cols []wal.Column) []int {
	pos := make([]int, 0, len(names))
	for i, k := range names {
		found := -1
		for n := range cols {
			if cols[n].Name == k {
				found = n
			}
		}
		if found < 0 && width == len(cols) {
			found = places[i] - 1
		}
		if found < 0 {
			return nil
		}
		pos = append(pos, found)
	}
	return pos
}
