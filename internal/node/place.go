package node

import (
	"context"
	"fmt"
	"strconv"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Place is the database that a session is in, as the server and the database itself say it.
type Place struct {
	System pg.System
	Row    Row  // zero: nobody has named it, or Hidden
	Hidden bool // it has a name, which the role of the session may not read
	// Moved: schema pgwaltz was in another database when a sidecar was at work here last, and this is a copy of it. It stays so behind
	// pg_upgrade too, until a sidecar is at work. false where that may not be read.
	Moved bool
}

// ID is the system identifier and the database: what tells a database from its namesakes.
func (p Place) ID() string { return fmt.Sprintf("%d/%s", p.System.SystemID, p.System.Database) }

// WrongError: a session is not in the database that it is for. Nothing was changed.
type WrongError struct{ What, Remedy string }

func (e *WrongError) Error() string { return e.What }

// Hint is the remedy.
func (e *WrongError) Hint() string { return e.Remedy }

// ExitCode is that of problems found.
func (e *WrongError) ExitCode() int { return 4 }

// placeSQL asks the catalog, since a schema that may not be used makes an error of each of its names.
const placeSQL = `select n.oid is not null,
  coalesce(pg_catalog.has_schema_privilege(s.oid, 'usage') and pg_catalog.has_column_privilege(n.oid, 'region', 'select') and pg_catalog.has_column_privilege(n.oid, 'cluster', 'select')
    and pg_catalog.has_column_privilege(n.oid, 'created_at', 'select'), false),
  coalesce(pg_catalog.has_schema_privilege(s.oid, 'usage') and pg_catalog.has_table_privilege(h.oid, 'select'), false)
from (select) one left join pg_catalog.pg_namespace s on s.nspname = 'pgwaltz'
left join pg_catalog.pg_class n on n.relnamespace = s.oid and n.relname = 'node' left join pg_catalog.pg_class h on h.relnamespace = s.oid and h.relname = 'home'`

// LookAt asks both. Any role may, also at a standby; what it may not read is Hidden.
func LookAt(ctx context.Context, c pg.Querier) (p Place, err error) {
	if p.System, err = pg.LoadSystem(ctx, c); err != nil {
		return p, err
	}
	var there, readable, home bool
	if err := c.QueryRow(ctx, placeSQL).Scan(&there, &readable, &home); err != nil {
		return p, fmt.Errorf("look for pgwaltz.node: %w", err)
	}
	switch p.Hidden = there && !readable; {
	case !there || p.Hidden:
		return p, nil
	default:
		if p.Row, err = Load(ctx, c); err != nil {
			return p, err
		}
	}
	if home {
		p.Moved, err = Elsewhere(ctx, c, p.System.SystemID)
	}
	return p, err
}

// Contradicts is why the place cannot be the primary of want; nil where nothing speaks against it. setting is what has led there, such as
// peers[].dsn. The error is a *WrongError.
func (p Place) Contradicts(want Row, setting string) error {
	switch {
	case p.Row.Region != "" && p.Row != want:
		return &WrongError{fmt.Sprintf("%s of region %s of cluster %s leads to database %s, which is region %s of cluster %s", setting, want.Region, want.Cluster, p.ID(), p.Row.Region, p.Row.Cluster),
			"correct " + setting}
	case p.System.InRecovery:
		return &WrongError{fmt.Sprintf("the server of region %s is a standby (%s)", want.Region, p.ID()), "let the connection string lead to the primary, such as with target_session_attrs=read-write"}
	}
	return nil
}

// Is is Contradicts, and refuses as well a database that does not say who it is.
func (p Place) Is(want Row, setting string) error {
	if err := p.Contradicts(want, setting); err != nil {
		return err
	}
	switch {
	case p.Hidden:
		role := pg.Quote(p.System.User)
		return &WrongError{fmt.Sprintf("role %q may not read whose database %s is (pgwaltz.node), and %s of region %s leads there", p.System.User, p.ID(), setting, want.Region),
			fmt.Sprintf("there, as the owner of schema pgwaltz: grant usage on schema pgwaltz to %[1]s; grant select (region, cluster, created_at) on pgwaltz.node to %[1]s", role)}
	case p.Row.Region == "":
		return &WrongError{fmt.Sprintf("%s of region %s leads to database %s, which is no region of pgwaltz", setting, want.Region, p.ID()), "correct " + setting + ", or run pgwaltz setup there"}
	}
	return nil
}

// Same refuses a session that is in another database than an earlier one of the same connection string.
func (p Place) Same(as pg.System, region string) error {
	if as.SystemID == 0 || p.System.SystemID == as.SystemID && p.System.Database == as.Database {
		return nil
	}
	return &WrongError{fmt.Sprintf("the connection string of region %s leads to database %s now, and led to %s/%s before", region, p.ID(), strconv.FormatUint(as.SystemID, 10), as.Database),
		"let it lead to one server"}
}
