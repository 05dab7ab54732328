package preflight

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// planted finds what somebody else has put where our objects belong: code of theirs would run
// with the sidecar's rights, and their tables would say what they like. In schema pgwaltz,
// everything belongs to the role that runs setup, to the sidecar's, or to a superuser; nothing
// there has triggers, rules or policies; and nobody else may create anything.
const plantedSQL = `with ours as (
  select oid from pg_catalog.pg_roles where rolsuper or rolname = any($1::text[])
), schema as (select oid, nspowner, nspacl from pg_catalog.pg_namespace where nspname = 'pgwaltz'),
relations as (select c.oid, c.relname, c.relowner, c.relkind, c.relrowsecurity from pg_catalog.pg_class c, schema s where c.relnamespace = s.oid)
select what, owner from (
  select 1, 'schema pgwaltz', pg_catalog.pg_get_userbyid(s.nspowner)::text from schema s where s.nspowner not in (select oid from ours)
  union all select 2, 'the right to create in schema pgwaltz', case a.grantee when 0 then 'everybody' else pg_catalog.pg_get_userbyid(a.grantee)::text end
    from schema s, pg_catalog.aclexplode(s.nspacl) a where a.privilege_type = 'CREATE' and a.grantee not in (select oid from ours)
  union all select 3, 'pgwaltz.' || r.relname::text, pg_catalog.pg_get_userbyid(r.relowner)::text from relations r where r.relowner not in (select oid from ours)
  union all select 4, 'function pgwaltz.' || p.proname::text, pg_catalog.pg_get_userbyid(p.proowner)::text from pg_catalog.pg_proc p, schema s
    where p.pronamespace = s.oid and p.proowner not in (select oid from ours)
  union all select 5, 'trigger ' || t.tgname::text || ' on pgwaltz.' || r.relname::text, pg_catalog.pg_get_userbyid(r.relowner)::text
    from pg_catalog.pg_trigger t join relations r on r.oid = t.tgrelid where not t.tgisinternal
  union all select 6, 'rule ' || w.rulename::text || ' on pgwaltz.' || r.relname::text, pg_catalog.pg_get_userbyid(r.relowner)::text
    from pg_catalog.pg_rewrite w join relations r on r.oid = w.ev_class where w.rulename <> '_RETURN'
  union all select 7, 'row security on pgwaltz.' || r.relname::text, pg_catalog.pg_get_userbyid(r.relowner)::text from relations r where r.relrowsecurity
  union all select 8, 'pgwaltz.' || r.relname::text || ', which should be a table', pg_catalog.pg_get_userbyid(r.relowner)::text
    from relations r where r.relname = any($2::text[]) and r.relkind <> 'r'
) x(n, what, owner) order by n, what`

// checkPlanted refuses to work with such objects. The remedy never drops anything: whoever reads
// it may have made them.
func checkPlanted(ctx context.Context, f *facts, fs *Findings) error {
	if !f.schema.exists {
		return nil
	}
	var names []string
	for _, o := range objects() {
		names = append(names, o.name)
	}
	rows, err := f.conn.Query(ctx, plantedSQL, []string{f.me.Name, f.runtimeName(), f.cfg.Postgres.AdminDSN.User()}, names)
	if err != nil {
		return fmt.Errorf("look for objects of others in schema pgwaltz: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var what, owner string
		if err := rows.Scan(&what, &owner); err != nil {
			return fmt.Errorf("look for objects of others in schema pgwaltz: %w", err)
		}
		fs.add(Error, "planted", fmt.Sprintf("find out who made it and what it does; then remove it, or if it is yours: reassign owned by %s to %s", pg.Quote(owner), pg.Quote(f.me.Name)),
			"%s belongs to %q and was not made by setup", what, owner)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for objects of others in schema pgwaltz: %w", err)
	}
	return nil
}
