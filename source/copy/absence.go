package copy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// AbsenceSchema makes the table of the tables, and partitions, whose changes are left out, or were: they are excluded, not published, or
// published in part, or they are partitions that were detached. xid, at and snap are a horizon of before that (tombstone.Horizon), null where none is
// known. A row stays until the table is looked through (away.go). noted_at is when it was seen last that changes are left out. writer is the transaction that
// wrote the row, as the row itself says: after a dump is restored neither it nor relid says anything. It may be run again.
const AbsenceSchema = `create table if not exists pgwaltz.absence (
  relid    oid primary key,
  xid      bigint,
  at       bigint,
  snap     text,
  noted_at timestamptz not null default pg_catalog.clock_timestamp(),
  writer   bigint not null
)`

// absentTail notes an absence once, with the horizon of its beginning.
const absentTail = `on conflict (relid) do update set noted_at = pg_catalog.clock_timestamp(), writer = excluded.writer,
  xid = case when a.xmin::text::int8 = a.writer & 4294967295 then a.xid else excluded.xid end, at = case when a.xmin::text::int8 = a.writer & 4294967295 then a.at else excluded.at end,
  snap = case when a.xmin::text::int8 = a.writer & 4294967295 then a.snap else excluded.snap end`

// Absent notes that changes of tables are left out, or were since they were looked at last. A table is named by its OID, by its name, which another one may have by
// now, or by both: then both are noted. whole is a horizon of a time at which they were not left out; known: there is one.
func Absent(ctx context.Context, c Execer, tables []Left, whole tombstone.Horizon, known bool) error {
	if len(tables) == 0 {
		return nil
	}
	schemas, names, oids := make([]string, len(tables)), make([]string, len(tables)), make([]int64, len(tables))
	for i, t := range tables {
		schemas[i], names[i], oids[i] = t.Name.Schema, t.Name.Name, int64(t.OID)
	}
	xid, at, snap := horizonArgs(whole, known)
	_, err := c.Exec(ctx, `insert into pgwaltz.absence as a (relid, xid, at, snap, writer)
select o, $4, $5, $6, pg_catalog.pg_current_xact_id()::text::int8 from (
  select c.oid as o from unnest($1::text[], $2::text[]) as u(s, t) join pg_catalog.pg_namespace n on n.nspname = u.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = u.t and c.relkind in ('r', 'p')
  union select c.oid from unnest($3::int8[]) as u(o) join pg_catalog.pg_class c on c.oid = u.o::oid and c.relkind in ('r', 'p')) as l order by 1
`+absentTail, schemas, names, oids, xid, at, snap)
	if err != nil {
		return fmt.Errorf("note that changes of tables are left out: %w", err)
	}
	return nil
}

// Left names a table of which changes are left out. OID is 0 where only the name is meant.
type Left struct {
	Name wal.RelationName
	OID  uint32
}

// LeftByName names tables by their names alone.
func LeftByName(tables []wal.RelationName) []Left {
	left := make([]Left, len(tables))
	for i, t := range tables {
		left[i].Name = t
	}
	return left
}

// horizonArgs are a horizon as parameters.
func horizonArgs(h tombstone.Horizon, known bool) (xid, at *int64, snap *string) {
	if !known {
		return nil, nil, nil
	}
	x, t := int64(h.XID), int64(h.At)
	if h.Snap != "" {
		snap = &h.Snap
	}
	return &x, &t, snap
}

// AbsentExcluded notes that changes of published tables that out reports are left out, and of those that were published.
func AbsentExcluded(ctx context.Context, c Session, publication string, out func(wal.RelationName) bool, whole tombstone.Horizon, known bool) error {
	rows, err := c.Query(ctx, `select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = $1 union select schema_name, table_name from pgwaltz.copy`, publication)
	if err != nil {
		return fmt.Errorf("look for excluded tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return fmt.Errorf("look for excluded tables: %w", err)
	}
	return Absent(ctx, c, LeftByName(slices.DeleteFunc(tables, func(t wal.RelationName) bool { return !out(t) })), whole, known)
}

// LookDue lists the tables, by the names that their rows are published under, that are about to be looked through: their copy is asked for.
func LookDue(ctx context.Context, c Session) ([]wal.RelationName, error) {
	rows, err := c.Query(ctx, `select distinct rn.nspname::text, r.relname::text from pgwaltz.absence a join pg_catalog.pg_class c on c.oid = a.relid
join pg_catalog.pg_class r on r.oid = coalesce(pg_catalog.pg_partition_root(c.oid)::oid, c.oid) join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pgwaltz.copy j on j.schema_name = n.nspname and j.table_name = c.relname or j.schema_name = rn.nspname and j.table_name = r.relname
where a.xmin::text::int8 = a.writer & 4294967295 and (j.state in ('pending', 'running') or j.state = 'off' and j.reason = $1) order by 1, 2`, excluded)
	if err != nil {
		return nil, fmt.Errorf("ask which tables are to be looked through: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wal.RelationName])
	if err != nil {
		return nil, fmt.Errorf("ask which tables are to be looked through: %w", err)
	}
	return tables, nil
}

// absence is one row of it.
type absence struct {
	relid uint32
	since tombstone.Horizon
	known bool
	noted time.Time
}

// same reports whether two are of one table, and it was not noted once more between them.
func (a absence) same(b absence) bool { return a.relid == b.relid && a.noted.Equal(b.noted) }

// loadAbsent reads what is noted of tables, those without a note left out.
func loadAbsent(ctx context.Context, c Session, relids []uint32) ([]absence, error) {
	rows, err := c.Query(ctx, `select relid, xid, at, coalesce(snap, ''), noted_at from pgwaltz.absence a where relid = any($1) and a.xmin::text::int8 = a.writer & 4294967295`, relids)
	if err != nil {
		return nil, fmt.Errorf("ask of which tables changes were left out: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (a absence, err error) {
		var xid, at *int64
		var snap string
		if err := r.Scan(&a.relid, &xid, &at, &snap, &a.noted); err != nil {
			return a, err
		}
		if a.known = xid != nil && at != nil; a.known {
			a.since = tombstone.Horizon{XID: uint64(*xid), At: wal.Micros(*at), Snap: snap}
		}
		return a, nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask of which tables changes were left out: %w", err)
	}
	return found, nil
}

// endAbsent forgets absences, or moves those to a later horizon that were noted again meanwhile.
func endAbsent(ctx context.Context, c Execer, all []absence, upTo tombstone.Horizon) error {
	for _, a := range all {
		_, err := c.Exec(ctx, `with kept as (
  update pgwaltz.absence set xid = $3, at = $4, snap = nullif($5, ''), writer = pg_catalog.pg_current_xact_id()::text::int8 where relid = $1 and noted_at <> $2
)
delete from pgwaltz.absence where relid = $1 and noted_at = $2`, a.relid, a.noted, int64(upTo.XID), int64(upTo.At), upTo.Snap)
		if err != nil {
			return fmt.Errorf("note that a table was looked through: %w", err)
		}
	}
	return nil
}

// pruneAbsent forgets tables that are gone.
func pruneAbsent(ctx context.Context, c Execer) error {
	if _, err := c.Exec(ctx, `delete from pgwaltz.absence a where not exists (select from pg_catalog.pg_class c where c.oid = a.relid)`); err != nil {
		return fmt.Errorf("forget tables that are gone: %w", err)
	}
	return nil
}

// oldest joins what is noted of a partition and of its table: the horizon that lies further back; nothing is known where one is not.
func oldest(all []absence, relids ...uint32) (since tombstone.Horizon, known, any bool) {
	known = true
	for _, a := range all {
		if !slices.Contains(relids, a.relid) {
			continue
		}
		known = known && a.known
		if !any || a.since.XID < since.XID {
			since = a.since
		}
		any = true
	}
	if !known {
		return tombstone.Horizon{}, false, any
	}
	return since, any, any
}
