package preflight

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
)

// setupCommand is the remedy for whatever setup makes.
const setupCommand = "pgwaltz setup --config FILE"

// Check reads the local database as the role of postgres.dsn and says what is missing or
// doubtful. It changes nothing. The error says that it could not read, which is no finding.
func Check(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (Findings, error) {
	_, fs, err := check(ctx, conn, cfg)
	return fs, err
}

func check(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*facts, Findings, error) {
	f, err := loadFacts(ctx, conn, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %w", err)
	}
	var fs Findings
	for _, w := range cfg.Warnings() {
		fs.add(Warning, "configuration", w.Remedy, "%s: %s", w.Key, w.What)
	}
	checkServer(f, &fs)
	checkPatterns(f, &fs)
	checkTables(f, &fs)
	for _, step := range []func(context.Context, *facts, *Findings) error{
		checkKeys, checkPlanted, checkRole, checkSchema, checkSettings, checkPublishing, checkApplying, checkReferences, checkNeighbours, checkSequences,
	} {
		if err := step(ctx, f, &fs); err != nil {
			return nil, nil, fmt.Errorf("check: %w", err)
		}
	}
	return f, fs, nil
}

// invalidationFixed tells for each major version the first minor one whose walsender hears of a
// change of the publication in transactions that are open then. Version 18 always has.
var invalidationFixed = map[int]int{14: 18, 15: 13, 16: 9, 17: 5}

// deafUntil is that minor version for a server that is older; 0 for one that is not.
func deafUntil(version int) int {
	if fixed := invalidationFixed[version/10000]; version%10000 < fixed {
		return fixed
	}
	return 0
}

// checkServer is what the server is, whatever we have in it.
func checkServer(f *facts, fs *Findings) {
	switch major := f.sys.Version / 10000; {
	case major < 14:
		fs.add(Error, "server_version", "upgrade PostgreSQL to 14 or later", "PostgreSQL %d is too old", major)
	case major > 18:
		fs.add(Warning, "server_version", "look for a newer pgwaltz", "PostgreSQL %d is newer than what this program was tested with (14 to 18)", major)
	}
	if fixed := deafUntil(f.sys.Version); f.cfg.Publishes() && fixed > 0 {
		fs.add(Warning, "server_minor", fmt.Sprintf("update PostgreSQL to %d.%d or later; until then run setup, and add tables to the publication, while no transaction that writes to them is open",
			f.sys.Version/10000, fixed), "PostgreSQL %d.%d loses the rest of a transaction that wrote to a table before the table came into the publication",
			f.sys.Version/10000, f.sys.Version%10000)
	}
	if f.sys.InRecovery {
		fs.add(Error, "in_recovery", "point postgres.dsn to the primary, or promote this server", "the server is in recovery: it takes no writes")
	}
	if f.cfg.Publishes() && f.sys.WALLevel != "logical" {
		fs.add(Error, "wal_level", "alter system set wal_level = logical, then restart PostgreSQL", "wal_level is %s, and must be logical", f.sys.WALLevel)
	}
}

// checkRole warns of a role that may do more than it has to.
func checkRole(ctx context.Context, f *facts, fs *Findings) error {
	if f.runtime == nil {
		return nil
	}
	if !f.runtime.Superuser && f.runtime.Replication && !f.separate() && pg.CopiesServer(ctx, f.cfg.Postgres.Fresh().Reveal(), pg.Options{Region: f.cfg.Region, Role: "check"}) {
		fs.add(Warning, "copies_server", fmt.Sprintf("put these lines first in pg_hba.conf, then select pg_reload_conf(): host replication %[1]s all reject; local replication %[1]s reject", pg.Quote(f.runtime.Name)),
			"pg_hba.conf lets role %q copy the whole server (database replication): whoever gets its password has every database of it", f.runtime.Name)
	}
	if f.runtime.Superuser {
		fs.add(Warning, "superuser", "give the sidecar a role of its own in postgres.dsn, put this one into postgres.admin_dsn, and run: "+setupCommand,
			"role %q of postgres.dsn is a superuser: whoever gets its password, or a statement into the sidecar, has the whole server", f.runtime.Name)
	}
	return nil
}

func checkSchema(ctx context.Context, f *facts, fs *Findings) error {
	switch {
	case !f.schema.exists:
		fs.add(Error, "schema_missing", setupCommand, "schema pgwaltz does not exist in database %q", f.sys.Database)
		return nil
	case !f.schema.usable:
		fs.add(Error, "schema_privilege", "grant usage on schema pgwaltz to "+pg.Quote(f.runtimeName()), "role %q may not use schema pgwaltz", f.runtimeName())
		return nil
	case f.schema.version != SchemaVersion:
		fs.add(Error, "schema_version", setupCommand, "schema pgwaltz has version %d, this program works with %d", f.schema.version, SchemaVersion)
	}
	outdated := false
	for _, o := range objects() {
		if !f.schema.objects[o.name] {
			fs.add(Error, "schema_missing", setupCommand, "table pgwaltz.%s does not exist", o.name)
			continue
		}
		for _, c := range f.schema.lacks(o) {
			fs.add(Error, "schema_outdated", setupCommand, "table pgwaltz.%s lacks column %s: an earlier program made it", o.name, c.name)
			outdated = true
		}
		var denied bool
		if err := f.conn.QueryRow(ctx, `select not coalesce(bool_and(pg_catalog.has_table_privilege(c.oid, w)), false)
from pg_catalog.unnest($2::text[]) w, pg_catalog.pg_class c where c.relnamespace = 'pgwaltz'::pg_catalog.regnamespace and c.relname = $1`, o.name, strings.Split(o.rights, ", ")).Scan(&denied); err != nil {
			return fmt.Errorf("read privileges on schema pgwaltz: %w", err)
		}
		if denied {
			fs.add(Error, "schema_privilege", "grant "+o.rights+" on pgwaltz."+o.name+" to "+pg.Quote(f.runtimeName()),
				"role %q lacks privileges on pgwaltz.%s", f.runtimeName(), o.name)
			return nil
		}
	}
	if f.schema.forget != audit.ForgetBody(f.cfg.Audit.Retention) {
		fs.add(Warning, "audit_retention", setupCommand, "audit.retention is %s, and setup has made the audit log keep its rows for another time", f.cfg.Audit.Retention)
	}
	if outdated {
		return nil // what stands in these tables cannot be read
	}
	return checkIdentityOfServer(ctx, f, fs)
}

// checkIdentityOfServer finds a database that is not the one that setup ran in: another
// region's, or another server behind the same address.
func checkIdentityOfServer(ctx context.Context, f *facts, fs *Findings) error {
	if f.schema.objects["node"] {
		n, err := node.Load(ctx, f.conn)
		if err != nil {
			return err
		}
		if wrong := n.Differs(node.Row{Region: f.cfg.Region, Cluster: f.cfg.Cluster}); wrong != "" {
			fs.add(Error, "wrong_node", "point postgres.dsn to the right database, or correct cluster and region", "%s", wrong)
		} else if n.Region == "" {
			fs.add(Error, "node_missing", setupCommand, "pgwaltz.node is empty")
		}
	}
	if !f.schema.objects["stream"] {
		return nil
	}
	row, err := streamstore.Load(ctx, f.conn, f.cfg.Region)
	if err != nil {
		return err
	}
	if id := row.Epoch.SystemID; id != 0 && id != f.sys.SystemID && !row.Resync {
		fs.add(Error, "wrong_server",
			fmt.Sprintf("point postgres.dsn to the server with identifier %d; where this one replaces it for good, run: pgwaltz resync --config FILE", id),
			"region %s was published from the server with system identifier %d, and this server has %d", f.cfg.Region, id, f.sys.SystemID)
	}
	return nil
}
