package hold

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Role is a role of the server, as a cutover sees it.
type Role struct {
	OID   uint32
	Name  string
	Login bool
	// Super and WriteAll roles are not bound by grants: only by default_transaction_read_only, which a session may set off.
	Super, WriteAll bool
	// Left says why the role is left alone; "" is a role that is held. Asked: the operator asked for it.
	Left  string
	Asked bool
	// Sessions are those in this database that are not pgwaltz's own.
	Sessions int
	// Settable: default_transaction_read_only of the role may be set. Endable: its sessions may be seen and ended.
	Settable, Endable bool
	// Was is default_transaction_read_only of the role in this database; nil where it has none.
	Was *string
}

// Soft reports whether grants do not bind the role.
func (r Role) Soft() bool { return r.Super || r.WriteAll }

// Held reports whether the role's writes are paused.
func (r Role) Held() bool { return r.Left == "" }

const rolesSQL = `with me as (select r.oid, r.rolsuper, r.rolcreaterole from pg_catalog.pg_roles r where r.rolname = current_user)
select r.oid::int8, r.rolname::text, r.rolcanlogin, r.rolsuper,
  not r.rolsuper and pg_catalog.pg_has_role(r.oid, 'pg_write_all_data', 'usage'),
  case when r.oid = me.oid or r.rolname = session_user then 'runs this command'
    when r.rolname = any($1::text[]) then 'pgwaltz works as it'
    when r.oid = l.relowner or exists (select from pg_catalog.aclexplode(l.relacl) x where x.grantee = r.oid and x.privilege_type = 'UPDATE') then 'pgwaltz works as it'
    when exists (select from pg_catalog.pg_subscription s where s.subowner = r.oid and s.subdbid = d.oid) then 'owns a subscription'
    when exists (select from pg_catalog.pg_stat_replication s where s.usesysid = r.oid) then 'reads the WAL'
    when r.rolname = any($2::text[]) then 'is left alone as was asked for' else '' end, r.rolname = any($2::text[]),
  (select pg_catalog.count(*) from pg_catalog.pg_stat_activity a where a.datid = d.oid and a.usesysid = r.oid and a.pid <> pg_catalog.pg_backend_pid()
    and a.application_name !~ '^pgwaltz_' and coalesce(a.backend_type, 'client backend') = 'client backend' and not exists (select from pg_catalog.pg_stat_replication s where s.pid = a.pid))::int4,
  me.rolsuper or me.rolcreaterole and not r.rolsuper and (pg_catalog.current_setting('server_version_num')::int4 < 160000
    or exists (select from pg_catalog.pg_auth_members m where m.roleid = r.oid and m.admin_option and pg_catalog.pg_has_role(me.oid, m.member, 'usage'))),
  me.rolsuper or not r.rolsuper and (pg_catalog.pg_has_role(me.oid, r.oid, 'usage')
    or pg_catalog.pg_has_role(me.oid, 'pg_signal_backend', 'usage') and pg_catalog.pg_has_role(me.oid, 'pg_read_all_stats', 'usage')),
  (select pg_catalog.split_part(c, '=', 2) from pg_catalog.pg_db_role_setting g, pg_catalog.unnest(g.setconfig) c
    where g.setdatabase = d.oid and g.setrole = r.oid and c like 'default\_transaction\_read\_only=%')
from me, pg_catalog.pg_roles r join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
left join pg_catalog.pg_class l on l.oid = pg_catalog.to_regclass('pgwaltz.lead')
where r.rolname !~ '^pg_' order by r.rolname`

// loadRoles reads all roles. ours are the names as which pgwaltz works, except those that the operator wants to be left alone.
func loadRoles(ctx context.Context, q pg.Querier, ours, except []string) ([]Role, error) {
	rows, err := q.Query(ctx, rolesSQL, append([]string{}, ours...), append([]string{}, except...)) // nil would be null
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Role, err error) {
		var oid int64
		err = row.Scan(&oid, &r.Name, &r.Login, &r.Super, &r.WriteAll, &r.Left, &r.Asked, &r.Sessions, &r.Settable, &r.Endable, &r.Was)
		r.OID = uint32(oid)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	return list, nil
}

// oids of the roles that want accepts.
func oids(roles []Role, want func(Role) bool) []int64 {
	out := []int64{}
	for _, r := range roles {
		if want(r) {
			out = append(out, int64(r.OID))
		}
	}
	return out
}

// named is the role with the name; nil where there is none.
func named(roles []Role, name string) *Role {
	if i := slices.IndexFunc(roles, func(r Role) bool { return r.Name == name }); i >= 0 {
		return &roles[i]
	}
	return nil
}
