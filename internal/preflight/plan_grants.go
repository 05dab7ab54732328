package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// planGrants gives the runtime role what it needs, where setup runs as another one.
func (p *planner) planGrants(ctx context.Context) error {
	if !p.separate() || p.runtime == nil || p.runtime.Superuser {
		return nil
	}
	role := pg.Quote(p.runtime.Name)
	p.add(p.schema.exists && p.schema.usable, "the sidecar works in our schema", "grant usage on schema pgwaltz to "+role)
	for _, o := range objects() {
		exact, err := p.exactlyGranted(ctx, o)
		if err != nil {
			return err
		}
		if !exact && p.schema.objects[o.name] {
			p.add(false, "no more than it needs", "revoke all on pgwaltz."+o.name+" from "+role)
		}
		p.add(exact, o.why, "grant "+o.rights+" on pgwaltz."+o.name+" to "+role)
	}
	may, err := p.mayForget(ctx)
	if err != nil {
		return err
	}
	p.add(may, "and lets what is too old go from the audit log", "grant execute on function "+audit.Forget+" to "+role)
	if err := p.grantTables(ctx, role); err != nil {
		return err
	}
	if !p.cfg.Applies() {
		return nil
	}
	if p.privileges() == config.PrivilegesReplica {
		sql := "grant set on parameter session_replication_role to " + role
		switch {
		case p.runtime.SetReplicationRole || p.canGrantParameter():
			p.add(p.runtime.SetReplicationRole, "applied rows pass the application's triggers by", sql)
		case p.sys.Version < 150000:
			p.refuse("no_replica_role", "set apply.privileges: restorer", "PostgreSQL 14 lets only superusers set session_replication_role")
		}
	}
	if err := p.grantYielding(ctx, role); err != nil {
		return err
	}
	return p.grantOrigins(ctx, role)
}

// grantYielding lets the runtime role look for deadlocks before the application does, so that it is the one
// that is ended. It works without, too, only that the application is ended now and then.
func (p *planner) grantYielding(ctx context.Context, role string) error {
	if !p.canGrantParameter() {
		return nil
	}
	var may bool
	err := p.conn.QueryRow(ctx, `select coalesce(bool_and(pg_catalog.has_parameter_privilege(r.rolname, w, 'set')), false)
from pg_catalog.pg_roles r, pg_catalog.unnest(array['deadlock_timeout', 'log_lock_waits']) w where r.rolname = $1`, p.runtime.Name).Scan(&may)
	if err != nil {
		return fmt.Errorf("read privileges on parameters: %w", err)
	}
	p.add(may, "who waits for each other with the application gives way to it", "grant set on parameter deadlock_timeout, log_lock_waits to "+role)
	return nil
}

// exactlyGranted reports whether the runtime role has the rights on one of our tables that it
// needs, and no others.
func (p *planner) exactlyGranted(ctx context.Context, o object) (bool, error) {
	if !p.schema.objects[o.name] {
		return false, nil
	}
	var ok bool
	err := p.conn.QueryRow(ctx, `select coalesce(bool_and(pg_catalog.has_table_privilege($1::text, c.oid, w) = (w = any($3::text[]))), false)
from pg_catalog.pg_class c, pg_catalog.unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'trigger', 'references']) w
where c.relnamespace = 'pgwaltz'::pg_catalog.regnamespace and c.relname = $2`, p.runtime.Name, o.name, strings.Split(o.rights, ", ")).Scan(&ok)
	if err != nil {
		return false, fmt.Errorf("read privileges on schema pgwaltz: %w", err)
	}
	return ok, nil
}

// mayForget reports whether the runtime role may call the function that deletes old audit rows.
func (p *planner) mayForget(ctx context.Context) (bool, error) {
	var ok bool
	err := p.conn.QueryRow(ctx, `select coalesce(bool_and(pg_catalog.has_function_privilege($1::text, p.oid, 'execute')), false)
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = 'pgwaltz' and p.proname = $2`,
		p.runtime.Name, audit.ForgetName).Scan(&ok)
	if err != nil {
		return false, fmt.Errorf("read privileges on schema pgwaltz: %w", err)
	}
	return ok, nil
}

// tablePrivileges is what the sidecar does with the application's tables: the copy reads
// them, the applier writes them.
func tablePrivileges(cfg *config.Config) []string {
	if cfg.Applies() {
		return []string{"select", "insert", "update", "delete"}
	}
	return []string{"select"}
}

func (p *planner) grantTables(ctx context.Context, role string) error {
	want := tablePrivileges(p.cfg)
	var schemas, tables []string
	for _, t := range p.sel.Tables {
		missing, err := pg.TablePrivileges(ctx, p.conn, p.runtime.Name, t.OID, want)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			tables = append(tables, t.SQL())
		}
		if !slices.Contains(schemas, t.Schema) {
			schemas = append(schemas, t.Schema)
		}
	}
	for _, s := range schemas {
		var ok bool
		if err := p.conn.QueryRow(ctx, `select pg_catalog.has_schema_privilege($1::text, $2::text, 'usage')`, p.runtime.Name, s).Scan(&ok); err != nil {
			return fmt.Errorf("read privileges on schema %q: %w", s, err)
		}
		p.add(ok, "tables of schema "+s, "grant usage on schema "+pg.Quote(s)+" to "+role)
	}
	if len(tables) > 0 {
		p.add(false, "the tables themselves", "grant "+strings.Join(want, ", ")+" on table "+strings.Join(tables, ", ")+" to "+role)
	}
	return nil
}

// grantOrigins lets the runtime role mark what it applies. Without it the sidecar marks its
// transactions with a message instead, which works but is decoded in full.
func (p *planner) grantOrigins(ctx context.Context, role string) error {
	signatures, err := originSignatures(ctx, p.conn)
	if err != nil {
		return err
	}
	sql := "grant execute on function " + strings.Join(signatures, ", ") + " to " + role
	switch {
	case p.runtime.Origins || p.me.Superuser:
		p.add(p.runtime.Origins, "applied rows are marked with an origin, so that they are not sent back", sql)
	default:
		p.warn("no_origins", "as a superuser: "+sql, "role %q may not use replication origins: transactions are marked with a message instead", p.runtime.Name)
	}
	return nil
}

func originSignatures(ctx context.Context, q pg.Querier) ([]string, error) {
	var out []string
	err := q.QueryRow(ctx, `select coalesce(pg_catalog.array_agg('pg_catalog.' || p.oid::pg_catalog.regprocedure::text order by p.proname), '{}')
from pg_catalog.pg_proc p where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = any($1::text[])`,
		pg.OriginFunctions()).Scan(&out)
	if err != nil {
		return nil, fmt.Errorf("read functions of replication origins: %w", err)
	}
	return out, nil
}
