package pg

import (
	"context"
	"fmt"
)

// System is what a server says of itself.
type System struct {
	SystemID   uint64
	Timeline   uint32
	Version    int // 150018
	Database   string
	User       string // current_user
	InRecovery bool
	WALLevel   string
}

// LoadSystem reads it over an ordinary session. The timeline is that of the WAL being
// written; a server in recovery tells that of its last checkpoint.
func LoadSystem(ctx context.Context, q Querier) (System, error) {
	var s System
	var id, timeline int64
	err := q.QueryRow(ctx, `select (select system_identifier from pg_catalog.pg_control_system()),
  case when r then (select timeline_id from pg_catalog.pg_control_checkpoint())::int8
    else ('x' || substr(pg_catalog.pg_walfile_name(case when r then null else pg_catalog.pg_current_wal_lsn() end), 1, 8))::bit(32)::int8 end,
  pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text, current_user::text, r,
  pg_catalog.current_setting('wal_level')
from pg_catalog.pg_is_in_recovery() as r`).Scan(&id, &timeline, &s.Version, &s.Database, &s.User, &s.InRecovery, &s.WALLevel)
	if err != nil {
		return System{}, fmt.Errorf("identify server: %w", err)
	}
	s.SystemID, s.Timeline = uint64(id), uint32(timeline)
	return s, nil
}

// Setting reads one setting of the session; "" when the server does not know it.
func Setting(ctx context.Context, q Querier, name string) (string, error) {
	var v string
	if err := q.QueryRow(ctx, `select coalesce(pg_catalog.current_setting($1, true), '')`, name).Scan(&v); err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, err)
	}
	return v, nil
}
