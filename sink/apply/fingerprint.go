package apply

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Whether a parked change goes in depends on the definition of its table, and on the rows of
// that table and of those that foreign keys join it with. Both can be looked at without trying.

// fingerprint is what the server says of a table at one moment.
type fingerprint struct {
	// definition changes with the table, its columns and their types, its constraints, indexes,
	// triggers and their functions, and the rights on it. "" where there is no such table.
	definition string
	// writes is how many rows of it and of its neighbours were written, by the server's statistics.
	writes int64
}

// fingerprintTables is how many tables one look covers.
const fingerprintTables = 200

const fingerprintSQL = `with r as materialized (
  select u.i, c.oid, c.xmin as cx, n.xmin as nx from unnest($1::text[], $2::text[]) with ordinality as u(s, t, i)
  join pg_catalog.pg_namespace n on n.nspname = u.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = u.t
), k as materialized (
  select k.oid, k.xmin as x, k.contype, k.conrelid, k.confrelid, k.contypid from pg_catalog.pg_constraint k
  where k.conrelid in (select r.oid from r) or k.confrelid in (select r.oid from r) or k.contypid <> 0
), ty as materialized (
  select distinct r.i, t.oid, t.typelem, t.xmin as x from r join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type t on t.oid = a.atttypid where t.oid >= 16384
), near as (
  select r.i, r.oid from r
  union select r.i, k.confrelid from r join k on k.conrelid = r.oid and k.contype = 'f'
  union select r.i, k.conrelid from r join k on k.confrelid = r.oid and k.contype = 'f'
), parts as (
  select r.i, pg_catalog.concat('c', r.oid, ':', r.cx, ':', r.nx) as p from r
  union all select r.i, pg_catalog.concat('a', a.attnum, ':', a.xmin) from r join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0
  union all select r.i, pg_catalog.concat('k', k.oid, ':', k.x) from r join k on k.conrelid = r.oid or k.confrelid = r.oid
  union all select r.i, pg_catalog.concat('x', x.indexrelid, ':', x.xmin) from r join pg_catalog.pg_index x on x.indrelid = r.oid
  union all select r.i, pg_catalog.concat('g', g.oid, ':', g.xmin, ':', p.xmin) from r join pg_catalog.pg_trigger g on g.tgrelid = r.oid and not g.tgisinternal
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
  union all select r.i, pg_catalog.concat('h', h.inhrelid, ':', h.xmin) from r join pg_catalog.pg_inherits h on h.inhparent = r.oid or h.inhrelid = r.oid
  union all select ty.i, pg_catalog.concat('t', ty.oid, ':', ty.x) from ty
  union all select ty.i, pg_catalog.concat('e', e.oid, ':', e.xmin) from ty join pg_catalog.pg_enum e on e.enumtypid in (ty.oid, ty.typelem)
  union all select ty.i, pg_catalog.concat('d', k.oid, ':', k.x) from ty join k on k.contypid in (ty.oid, ty.typelem)
  union all select ty.i, pg_catalog.concat('f', a.attnum, ':', a.xmin) from ty join pg_catalog.pg_type c on c.oid in (ty.oid, ty.typelem)
    join pg_catalog.pg_attribute a on a.attrelid = c.typrelid and c.typrelid <> 0 and a.attnum > 0
)
select d.i, d.p, w.n from (select i, pg_catalog.md5(pg_catalog.string_agg(p, ',' order by p)) as p from parts group by i) d
join (select near.i, sum(pg_catalog.pg_stat_get_tuples_inserted(near.oid) + pg_catalog.pg_stat_get_tuples_updated(near.oid)
  + pg_catalog.pg_stat_get_tuples_deleted(near.oid))::int8 as n from near group by near.i) w on w.i = d.i`

// fingerprints looks at tables. Those that are not here are in the answer, with an empty definition.
func fingerprints(ctx context.Context, q querier, tables []wal.RelationName) (map[wal.RelationName]fingerprint, error) {
	out := make(map[wal.RelationName]fingerprint, len(tables))
	schemas, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		schemas[i], names[i], out[t] = t.Schema, t.Name, fingerprint{}
	}
	rows, err := q.Query(ctx, fingerprintSQL, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("look at the tables of parked changes: %w", err)
	}
	var i, writes int64
	var definition string
	_, err = pgx.ForEachRow(rows, []any{&i, &definition, &writes}, func() error {
		out[tables[i-1]] = fingerprint{definition, writes}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the tables of parked changes: %w", err)
	}
	return out, nil
}
