package hold

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// every is how often sessions are looked for, and quietRounds how many looks in a row must find none.
const (
	every       = 100 * time.Millisecond
	quietRounds = 4
)

// oldSQL finds sessions of the held roles ($1) from before the pause ($2). Whose start is not shown counts as old.
const oldSQL = `select a.pid::int4, coalesce(r.rolname, '?')::text, coalesce(a.state = 'idle', false) from pg_catalog.pg_stat_activity a left join pg_catalog.pg_roles r on r.oid = a.usesysid
where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid() and a.usesysid = any($1::int8[]::oid[])
  and coalesce(a.backend_type, '') not in ('walsender', 'parallel worker', 'logical replication worker') and not coalesce(a.backend_start >= $2, false)`

type session struct {
	pid  int32
	role string
	idle bool
}

// Drain ends the sessions of the held roles that began before the pause, so that nothing which was allowed then is under way: those between transactions at
// once, the others when grace is over. It waits until four looks in a row find none and no prepared transaction is left, or ctx
// ends. It may be called again. ours are the roles as which pgwaltz works.
func Drain(ctx context.Context, conn *pgx.Conn, ours []string, grace time.Duration) (ended int, err error) {
	s, err := Load(ctx, conn)
	if err != nil {
		return 0, err
	}
	if s == nil || !s.Paused {
		return 0, ErrOver
	}
	roles, err := loadRoles(ctx, conn, ours, s.LeftAlone)
	if err != nil {
		return ended, err
	}
	held := oids(roles, func(r Role) bool { return r.Held() && (r.Endable || r.Sessions > 0) })
	var began time.Time
	if err := conn.QueryRow(ctx, `select pg_catalog.clock_timestamp()`).Scan(&began); err != nil {
		return ended, err
	}
	last := ""
	for quiet, start := 0, time.Now(); quiet < quietRounds; {
		n, left, err := round(ctx, conn, held, began, time.Since(start) >= grace)
		ended += n
		if err != nil {
			if ctx.Err() != nil {
				return ended, fmt.Errorf("end sessions: %w%s", context.Cause(ctx), last)
			}
			return ended, err
		}
		if err := failpoint.Hit("cutover.round"); err != nil {
			return ended, err
		}
		quiet++
		if last = left; left != "" {
			quiet, last = 0, "; left: "+left
		}
		if err := pause.For(ctx, every); err != nil {
			return ended, fmt.Errorf("end sessions: %w%s", err, last)
		}
	}
	if err := Done(ctx, conn, Drained); err != nil {
		return ended, err
	}
	return ended, failpoint.Hit("cutover.drained")
}

// round looks once; left names what is open still.
func round(ctx context.Context, conn *pgx.Conn, held []int64, began time.Time, all bool) (ended int, left string, err error) {
	rows, err := conn.Query(ctx, oldSQL, held, began)
	if err != nil {
		return 0, "", fmt.Errorf("read sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s session, err error) {
		return s, row.Scan(&s.pid, &s.role, &s.idle)
	})
	if err != nil {
		return 0, "", fmt.Errorf("read sessions: %w", err)
	}
	for _, s := range list {
		left = fmt.Sprintf("session %d of role %s", s.pid, s.role)
		if !s.idle && !all {
			continue
		}
		var ok bool
		err := conn.QueryRow(ctx, `select pg_catalog.pg_terminate_backend($1)`, s.pid).Scan(&ok)
		switch {
		case pg.Code(err) == "42501":
			return ended, left, fmt.Errorf("end %s: %w (grant pg_signal_backend, pg_read_all_stats to this role; a superuser's sessions need a superuser)", left, err)
		case err != nil:
			return ended, left, fmt.Errorf("end %s: %w", left, err)
		case ok:
			ended++
		}
	}
	if left != "" {
		return ended, left, nil
	}
	var prepared string
	err = conn.QueryRow(ctx, `select p.gid from pg_catalog.pg_prepared_xacts p where p.database = pg_catalog.current_database() limit 1`).Scan(&prepared)
	switch {
	case err == nil:
		return ended, fmt.Sprintf("prepared transaction %q, which has to be committed or rolled back", prepared), nil
	case errors.Is(err, pgx.ErrNoRows):
		return ended, "", nil
	}
	return ended, "", fmt.Errorf("read prepared transactions: %w", err)
}
