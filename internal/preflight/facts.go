package preflight

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// facts is what Plan and Check read once, before they judge.
type facts struct {
	cfg     *config.Config
	conn    *pgx.Conn
	sys     pg.System
	me      *pg.Role // the session's role
	runtime *pg.Role // the role that run connects as; nil when it does not exist
	tables  []*pg.Table
	schemas []string // names of all schemas that are not the system's
	sel     Selection
	pub     *pg.Publication
	slot    *pg.Slot
	schema  schemaState
	owners  map[string]bool // roles whose objects the session may alter
}

// schemaState is what stands in schema pgwaltz.
type schemaState struct {
	exists  bool
	usable  bool            // the runtime role may use it
	version int             // 0 where it has no mark
	objects map[string]bool // tables, indexes, table.column, function()
	forget  string          // the text of the function that deletes old audit rows
	closed  bool            // not everybody may call it
}

func loadFacts(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*facts, error) {
	f := &facts{cfg: cfg, conn: conn}
	var err error
	if f.sys, err = pg.LoadSystem(ctx, conn); err != nil {
		return nil, err
	}
	if f.me, err = pg.LoadRole(ctx, conn, ""); err != nil {
		return nil, err
	}
	f.runtime = f.me
	if name := cfg.Postgres.Fresh().User(); name != "" && name != f.me.Name {
		if f.runtime, err = pg.LoadRole(ctx, conn, name); err != nil {
			return nil, err
		}
	}
	if f.tables, err = pg.LoadTables(ctx, conn); err != nil {
		return nil, err
	}
	f.sel = Select(cfg, f.tables)
	if err := conn.QueryRow(ctx, `select array(select nspname::text from pg_catalog.pg_namespace where nspname not like 'pg\_%')`).Scan(&f.schemas); err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	if f.pub, err = pg.LoadPublication(ctx, conn, cfg.Postgres.Publication); err != nil {
		return nil, err
	}
	if f.slot, err = pg.LoadSlot(ctx, conn, cfg.Postgres.Slot); err != nil {
		return nil, err
	}
	if err := f.loadOwners(ctx); err != nil {
		return nil, err
	}
	return f, f.loadSchema(ctx)
}

func (f *facts) loadOwners(ctx context.Context) error {
	var names []string
	err := f.conn.QueryRow(ctx, `select coalesce(pg_catalog.array_agg(rolname::text), '{}') from pg_catalog.pg_roles
where pg_catalog.pg_has_role(current_user, oid, 'usage')`).Scan(&names)
	if err != nil {
		return fmt.Errorf("read memberships: %w", err)
	}
	f.owners = map[string]bool{}
	for _, n := range names {
		f.owners[n] = true
	}
	return nil
}

func (f *facts) loadSchema(ctx context.Context) error {
	var comment string
	var names []string
	role := f.me.Name
	if f.runtime != nil {
		role = f.runtime.Name
	}
	err := f.conn.QueryRow(ctx, `select coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), ''),
  pg_catalog.has_schema_privilege($1::text, n.oid, 'usage'),
  array(select c.relname::text from pg_catalog.pg_class c where c.relnamespace = n.oid)
    || array(select c.relname::text || '.' || a.attname::text from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = n.oid and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped)
    || array(select p.proname::text || '()' from pg_catalog.pg_proc p where p.pronamespace = n.oid)
from pg_catalog.pg_namespace n where n.nspname = 'pgwaltz'`, role).Scan(&comment, &f.schema.usable, &names)
	f.schema.objects = map[string]bool{}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read schema pgwaltz: %w", err)
	}
	f.schema.exists = true
	if rest, ok := strings.CutPrefix(comment, strings.TrimRight(versionComment, "0123456789")); ok {
		f.schema.version, _ = strconv.Atoi(rest) // 0 for a comment that somebody changed: Check says so
	}
	for _, n := range names {
		f.schema.objects[n] = true
	}
	err = f.conn.QueryRow(ctx, `select p.prosrc, not exists (select from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
  where a.grantee = 0) from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'pgwaltz' and p.proname = $1`, audit.ForgetName).Scan(&f.schema.forget, &f.schema.closed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read functions of schema pgwaltz: %w", err)
	}
	return nil
}

// runtimeName is the role that run connects as, whether it exists or not.
func (f *facts) runtimeName() string {
	if f.runtime != nil {
		return f.runtime.Name
	}
	return f.cfg.Postgres.Fresh().User()
}

// separate reports whether setup runs as another role than run.
func (f *facts) separate() bool { return f.runtime == nil || f.runtime.Name != f.me.Name }

// privileges resolves how applied rows are kept from the application's triggers.
func (f *facts) privileges() config.Privileges {
	if p := f.cfg.Apply.Privileges; p != config.PrivilegesAuto {
		return p
	}
	if f.runtime != nil && f.runtime.SetReplicationRole || f.canGrantParameter() {
		return config.PrivilegesReplica
	}
	return config.PrivilegesRestorer
}

// canGrantParameter reports whether this session may give the runtime role the right to set
// session_replication_role.
func (f *facts) canGrantParameter() bool {
	return f.separate() && f.me.Superuser && f.sys.Version >= 150000
}
