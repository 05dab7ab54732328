package hold

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// exceptedSQL finds where the server looks with the rights of roles that are held ($2) at what roles that are left alone ($1) write: foreign keys are checked by the
// owner of the other table, and a view writes as its owner.
const exceptedSQL = `with writes as (
  select r.rolname, c.oid, c.relkind, c.relowner, c.reloptions, w from pg_catalog.pg_roles r, pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace,
    pg_catalog.unnest(array['INSERT', 'UPDATE', 'DELETE']) w
  where r.oid = any($1::int8[]::oid[]) and c.relkind in ('r', 'p', 'v') and ` + outside + `
    and (pg_catalog.has_table_privilege(r.oid, c.oid, w) or w <> 'DELETE' and pg_catalog.has_any_column_privilege(r.oid, c.oid, w))
)
select distinct pg_catalog.format('foreign keys of %s (role %s, owner %s)', w.oid::pg_catalog.regclass, w.rolname, o.rolname) from writes w
join pg_catalog.pg_constraint f on f.contype = 'f' and (f.conrelid = w.oid and w.w in ('INSERT', 'UPDATE') or f.confrelid = w.oid and w.w in ('UPDATE', 'DELETE'))
join pg_catalog.pg_class e on e.oid = case f.conrelid when w.oid then f.confrelid else f.conrelid end join pg_catalog.pg_roles o on o.oid = e.relowner
where o.oid = any($2::int8[]::oid[])
union select pg_catalog.format('view %s (role %s, owner %s)', w.oid::pg_catalog.regclass, w.rolname, o.rolname) from writes w join pg_catalog.pg_roles o on o.oid = w.relowner
where w.relkind = 'v' and o.oid = any($2::int8[]::oid[]) and not coalesce(w.reloptions && array['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'], false)
  and pg_catalog.pg_relation_is_updatable(w.oid, true) & 28 <> 0
order by 1`

// excepted names what roles that the operator wants to be left alone cannot write in the pause, because the server does it with the rights of an owner who is held.
func (p *Pause) excepted(ctx context.Context, q pg.Querier) error {
	rows, err := q.Query(ctx, exceptedSQL, oids(p.Roles, func(r Role) bool { return r.Asked && !r.Held() && !r.Super }), oids(p.Roles, func(r Role) bool { return r.Held() && !r.Soft() }))
	if err != nil {
		return fmt.Errorf("read foreign keys and views: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read foreign keys and views: %w", err)
	}
	if len(list) > 0 {
		p.add(preflight.Warning, "except_checks", "leave the owner alone as well and let the application use another role: --except OWNER",
			"roles that are left alone will be refused, because the server works with the rights of an owner who is held: %s", some(list))
	}
	return nil
}
