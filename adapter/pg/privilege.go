package pg

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// OriginFunctions are the functions of replication origins that the applier calls. They are
// for superusers unless granted.
func OriginFunctions() []string {
	return []string{
		"pg_replication_origin_oid", "pg_replication_origin_progress", "pg_replication_origin_session_is_setup",
		"pg_replication_origin_session_progress", "pg_replication_origin_session_reset", "pg_replication_origin_session_setup",
		"pg_replication_origin_xact_reset", "pg_replication_origin_xact_setup",
	}
}

// Role is what a role may do, by itself or through roles that it inherits.
type Role struct {
	Name        string
	Superuser   bool
	Replication bool
	BypassRLS   bool
	// SetReplicationRole: may set session_replication_role.
	SetReplicationRole bool
	// Origins: may execute every function of OriginFunctions; CreateOrigin the creating one.
	Origins      bool
	CreateOrigin bool
	// CreateInDatabase: may create schemas and publications here.
	CreateInDatabase bool
}

// LoadRole reads the privileges of a role; nil when it does not exist. "" is the session's
// own role. SetReplicationRole of another role than the session's is known from 15 on.
func LoadRole(ctx context.Context, q Beginner, name string) (*Role, error) {
	r := &Role{}
	var own bool
	var version int
	err := q.QueryRow(ctx, `select r.rolname::text, r.rolsuper, r.rolreplication, r.rolbypassrls or r.rolsuper, r.rolname = current_user,
  (select bool_and(pg_catalog.has_function_privilege(r.oid, p.oid, 'execute')) from pg_catalog.pg_proc p
    where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = any($2::text[])),
  (select bool_and(pg_catalog.has_function_privilege(r.oid, p.oid, 'execute')) from pg_catalog.pg_proc p
    where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = 'pg_replication_origin_create'),
  pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'create'),
  pg_catalog.current_setting('server_version_num')::int
from pg_catalog.pg_roles r where r.rolname = case when $1::text = '' then current_user else $1::text end`, name, OriginFunctions()).Scan(
		&r.Name, &r.Superuser, &r.Replication, &r.BypassRLS, &own, &r.Origins, &r.CreateOrigin, &r.CreateInDatabase, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read privileges of role %q: %w", name, err)
	}
	switch {
	case own:
		r.SetReplicationRole, err = canSetReplicationRole(ctx, q)
	case r.Superuser:
		r.SetReplicationRole = true
	case version >= 150000:
		err = q.QueryRow(ctx, `select pg_catalog.has_parameter_privilege($1::text, 'session_replication_role', 'set')`, r.Name).Scan(&r.SetReplicationRole)
	}
	if err != nil {
		return nil, fmt.Errorf("read privileges of role %q: %w", r.Name, err)
	}
	return r, nil
}

// canSetReplicationRole tries it, which is the only answer that holds on every version and
// on managed servers; the transaction is rolled back.
func canSetReplicationRole(ctx context.Context, q Beginner) (bool, error) {
	tx, err := q.Begin(ctx)
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, `set local session_replication_role = replica`)
	if rerr := tx.Rollback(ctx); rerr != nil {
		return false, rerr
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		return false, nil
	}
	return err == nil, err
}

// TablePrivileges returns which of the wanted privileges (SELECT, INSERT) the role lacks on
// a table.
func TablePrivileges(ctx context.Context, q Querier, role string, oid uint32, want []string) ([]string, error) {
	var missing []string
	err := q.QueryRow(ctx, `select coalesce(pg_catalog.array_agg(w), '{}') from pg_catalog.unnest($3::text[]) w
where not pg_catalog.has_table_privilege($1::text, $2::int8::oid, w)`, role, int64(oid), want).Scan(&missing)
	if err != nil {
		return nil, fmt.Errorf("read table privileges of role %q: %w", role, err)
	}
	return missing, nil
}

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}
