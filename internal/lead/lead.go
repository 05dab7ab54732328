// Package lead says which sidecar of a region is at work. It owns table pgwaltz.lead, whose row
// names a session: who is named there leads for as long as
// that session lives. So it ends with the session, however that ends; only who may write our tables
// can take it (everybody may take an advisory lock); and nobody keeps a lock or a transaction open
// for it, so that nothing is held back: no vacuum, no drop of the schema, no alarm for sessions that
// are idle in a transaction.
package lead

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again.
const Schema = `create table if not exists pgwaltz.lead (
  region text primary key,
  pid    int not null,         -- of the session of the sidecar at work
  role   text not null,
  began  timestamptz not null  -- when that session was opened
)`

// Holder is the session that holds the lead; PID is 0 when nobody does.
type Holder struct {
	PID   int
	Works bool // it is one of ours, and has given a sign of life lately
}

// holderSQL joins the row with its session, when that lives. A pid may belong to another session
// by now; of other roles' sessions the time of their start cannot be seen.
const holderSQL = ` from pgwaltz.lead l join pg_catalog.pg_stat_activity a
  on a.pid = l.pid and a.usename = l.role and coalesce(a.backend_start = l.began, true)
where l.region = $1`

// FrozenAfter is how long a leader has to be silent before the standby ends its session.
const FrozenAfter = 15 * time.Second

// Look looks for the session that holds the lead.
func Look(ctx context.Context, conn *pgx.Conn, region string) (h Holder, err error) {
	err = conn.QueryRow(ctx, `select a.pid, coalesce(a.usename = session_user and pg_catalog.starts_with(a.application_name, 'pgwaltz_')
  and a.state_change > pg_catalog.clock_timestamp() - $2::interval, false)`+holderSQL, region, FrozenAfter).Scan(&h.PID, &h.Works)
	if errors.Is(err, pgx.ErrNoRows) {
		return Holder{Works: true}, nil // nobody, or it has just gone
	}
	return h, err
}

// Claim takes the lead for the session of conn, unless a session that lives has it. Two that try at
// once wait for each other's row lock, and look for living sessions behind it.
func Claim(ctx context.Context, conn *pgx.Conn, region string) (bool, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	// What a crash of the server loses here is worth nothing behind it: every session is gone.
	for _, sql := range []string{"set local synchronous_commit = off", "set local lock_timeout = '1s'"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return false, err
		}
	}
	if _, err := tx.Exec(ctx, `insert into pgwaltz.lead (region, pid, role, began) values ($1, 0, '', 'epoch') on conflict do nothing`, region); err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, `select from pgwaltz.lead where region = $1 for update nowait`, region); err != nil {
		return false, err
	}
	// Within a transaction the server goes on showing the sessions that it showed first.
	if _, err := tx.Exec(ctx, `select pg_catalog.pg_stat_clear_snapshot()`); err != nil {
		return false, err
	}
	tag, err := tx.Exec(ctx, `update pgwaltz.lead set pid = me.pid, role = me.usename, began = me.backend_start
from pg_catalog.pg_stat_activity me where region = $1 and me.pid = pg_catalog.pg_backend_pid() and not exists (select`+holderSQL+`)`, region)
	if err != nil {
		return false, err
	}
	return tag.RowsAffected() == 1, tx.Commit(ctx)
}

// Held is an error when the row names another session than that of conn. What keeps it from
// being looked at, as when somebody locks the table, takes nothing away.
func Held(ctx context.Context, conn *pgx.Conn, region string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var mine bool
	err := conn.QueryRow(ctx, `select coalesce((select l.pid = pg_catalog.pg_backend_pid() from pgwaltz.lead l where l.region = $1), false)`, region).Scan(&mine)
	switch pg.Code(err) {
	case "55P03", "42P01", "3F000", "42501":
		return nil
	}
	if err == nil && !mine {
		err = errors.New("pgwaltz.lead names another session")
	}
	if err != nil {
		return fmt.Errorf("look at pgwaltz.lead: %w", err)
	}
	return nil
}

// Depose ends the session that holds the lead if it has been silent for FrozenAfter. It reports
// whether it did.
func Depose(ctx context.Context, conn *pgx.Conn, region string) (bool, error) {
	tag, err := conn.Exec(ctx, `select pg_catalog.pg_terminate_backend(l.pid)`+holderSQL+`
  and a.usename = current_user and a.state_change < pg_catalog.clock_timestamp() - $2::interval`, region, FrozenAfter)
	if err != nil {
		return false, fmt.Errorf("end the session that holds the lead: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}
