package hold

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Session is one of the application's at the source.
type Session struct {
	PID         int32   `json:"pid"`
	Role        string  `json:"role"`
	Application string  `json:"application"`
	State       string  `json:"state"`   // as the server says it; "" where this role may not see it
	Seconds     float64 `json:"seconds"` // since its transaction began; 0: it has none
	Writes      bool    `json:"writes"`  // its transaction has written
	Left        string  `json:"left_alone,omitempty"`
}

// Held reports whether the session's role is one whose writes a pause holds.
func (s Session) Held() bool { return s.Left == "" }

const sessionsSQL = `select a.pid::int4, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
  coalesce(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start), 0)::float8, a.backend_xid is not null
from pg_catalog.pg_stat_activity a where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid() and coalesce(a.backend_type, 'client backend') = 'client backend'
  and a.application_name !~ '^pgwaltz_' and not exists (select from pg_catalog.pg_stat_replication s where s.pid = a.pid)
order by a.backend_xid is null, a.xact_start, a.pid`

// Sessions are those of the application in this database, the writing ones first. ours are the roles as which pgwaltz works, except those that are left alone
// because the operator asked for it.
func Sessions(ctx context.Context, q pg.Querier, ours, except []string) ([]Session, error) {
	roles, err := loadRoles(ctx, q, ours, except)
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, sessionsSQL)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Session, err error) {
		return s, row.Scan(&s.PID, &s.Role, &s.Application, &s.State, &s.Seconds, &s.Writes)
	})
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	for i, s := range list {
		if r := named(roles, s.Role); r != nil {
			list[i].Left = r.Left
		}
	}
	return list, nil
}

// Left is why a pause leaves the role alone; "" is one that it holds. A role that is not there is an error.
func Left(ctx context.Context, q pg.Querier, ours []string, role string) (string, error) {
	roles, err := loadRoles(ctx, q, ours, nil)
	if err != nil {
		return "", err
	}
	r := named(roles, role)
	if r == nil {
		return "", fmt.Errorf("role %q is not there", role)
	}
	if r.Soft() && r.Held() {
		return "no grant binds it", nil
	}
	return r.Left, nil
}
