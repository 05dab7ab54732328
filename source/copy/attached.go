package copy

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// PartitionSchema makes the table of the partitions that the published tables had when they were
// looked at last, the tables themselves among them (relid = root). attached names the
// transactions that attached a partition, from the root down. It may be run again.
const PartitionSchema = `create table if not exists pgwaltz.partition (
  root     oid not null,
  relid    oid not null,
  attached text not null,
  primary key (root, relid)
)`

// freshSQL notes the partitions as they are, and those that were detached, with the horizon in its parameters, and returns those that were attached since the last
// look at their table. Of a table that is looked at for the first time none is returned: all of it
// is copied.
const freshSQL = `with recursive tree(root, oid, attached, last) as (
  select r.oid, r.oid, '', null::xid from pg_catalog.pg_publication_tables p join pg_catalog.pg_namespace n on n.nspname = p.schemaname
  join pg_catalog.pg_class r on r.relnamespace = n.oid and r.relname = p.tablename and r.relkind = 'p' where p.pubname = $1
  union all
  select tree.root, h.inhrelid, tree.attached || '.' || h.xmin::text, case when pg_catalog.age(tree.last) < pg_catalog.age(h.xmin) then tree.last else h.xmin end from tree join pg_catalog.pg_inherits h on h.inhparent = tree.oid and not h.inhdetachpending
), now as (
  select tree.root, tree.oid, tree.attached, tree.last, n.nspname, c.relname from tree join pg_catalog.pg_class c on c.oid = tree.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' or tree.oid = tree.root
), gone as (
  delete from pgwaltz.partition p where not exists (select from now where now.root = p.root and now.oid = p.relid)
), away as (
  insert into pgwaltz.absence as a (relid, xid, at, snap, writer)
  select distinct p.relid, $2::int8, $3::int8, $4::text, pg_catalog.pg_current_xact_id()::text::int8 from pgwaltz.partition p join pg_catalog.pg_class c on c.oid = p.relid and c.relkind = 'r'
  where p.relid <> p.root and not exists (select from now where now.root = p.root and now.oid = p.relid and now.attached = p.attached)
  ` + absentTail + `
), fresh as (
  insert into pgwaltz.partition as p (root, relid, attached) select root, oid, attached from now
  where not exists (select from pgwaltz.partition k where k.root = now.root and k.relid = now.oid and k.attached = now.attached)
  on conflict (root, relid) do update set attached = excluded.attached returning p.root, p.relid
)
select now.nspname::text, now.relname::text, r.nspname::text, r.relname::text, now.last::text, pg_catalog.has_table_privilege(now.oid, 'select')
from fresh join now on now.root = fresh.root and now.oid = fresh.relid and now.oid <> now.root join now as r on r.root = now.root and r.oid = now.root
where exists (select from pgwaltz.partition k where k.root = now.root and k.relid = now.root) order by 1, 2`

// Attached returns the partitions of the published tables that were attached since the last call,
// and that hold rows from before: these are in nobody's stream. With ask set their copies are asked
// for. Tables that out reports are left alone. whole is a horizon of a time at which all of them were
// attached; known: there is one. Nothing counts as looked at when it fails.
func Attached(ctx context.Context, conn *pgx.Conn, publication string, whole tombstone.Horizon, known, ask bool, out func(wal.RelationName) bool) (found []wal.RelationName, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		found = nil
		if _, err := tx.Exec(ctx, "set local lock_timeout = '300ms'"); err != nil {
			return err
		}
		xid, at, snap := horizonArgs(whole, known)
		rows, err := tx.Query(ctx, freshSQL, publication, xid, at, snap)
		if err != nil {
			return err
		}
		type fresh struct {
			name, root wal.RelationName
			attached   string
			readable   bool
		}
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (f fresh, err error) {
			return f, r.Scan(&f.name.Schema, &f.name.Name, &f.root.Schema, &f.root.Name, &f.attached, &f.readable)
		})
		if err != nil {
			return err
		}
		for _, f := range all {
			if out(f.root) {
				continue
			}
			older := true
			if f.readable {
				// What was written after it was attached is in the WAL as the table's.
				err := tx.QueryRow(ctx, `select exists (select from only `+pg.QuoteTable(f.name.Schema, f.name.Name)+` as x
where pg_catalog.age(x.xmin) not between 0 and pg_catalog.age($1::text::pg_catalog.xid) - 1)`, f.attached).Scan(&older)
				if err != nil {
					return err
				}
			}
			if older {
				found = append(found, f.name)
			}
		}
		if !ask || len(found) == 0 {
			return nil
		}
		_, err = tx.Exec(ctx, RequestSQL(found))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for attached partitions: %w", err)
	}
	return found, nil
}

// rootOf returns the table that a partition's rows are published as; the name itself of any other
// table.
func rootOf(ctx context.Context, conn *pgx.Conn, t *pg.Table) (wal.RelationName, error) {
	name := t.Ref()
	if !t.Partition {
		return name, nil
	}
	err := conn.QueryRow(ctx, `select rn.nspname::text, r.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class r on r.oid = pg_catalog.pg_partition_root(c.oid) join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
where n.nspname = $1 and c.relname = $2`, t.Schema, t.Name).Scan(&name.Schema, &name.Name)
	if err != nil {
		return name, fmt.Errorf("find the table of partition %s: %w", t.Ref(), err)
	}
	return name, nil
}

// Querier is the part of a pgx connection or transaction that reads.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Published reports whether a table is in the publication.
func Published(ctx context.Context, conn Querier, publication string, t wal.RelationName) (is bool, err error) {
	err = conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_publication_tables where pubname = $1 and schemaname = $2 and tablename = $3)`,
		publication, t.Schema, t.Name).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("read publication: %w", err)
	}
	return is, nil
}
