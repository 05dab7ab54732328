package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/source/names"
)

// lockKey is the advisory lock that two setups of one database compete for: "pgwaltz" in ASCII.
const lockKey = 0x7067_7761_6c74_7a

// lockTries is how often a statement is tried whose table lock did not come in time. Each
// try waits for postgres.lock_timeout, and lets the application's statements pass between.
const lockTries = 5

// Talk is what Apply tells while it works. Every field may be nil.
type Talk struct {
	// Planned is called once, before the first statement runs.
	Planned func(*Setup)
	// Ran is called after each statement that was run.
	Ran func(Statement)
	// Waiting is called when a statement has waited for others for a second or more; who
	// names processes, never what they run.
	Waiting func(st Statement, who string)
	// Observe opens a second session that sees who is waited for. Apply closes it.
	Observe func(ctx context.Context) (*pgx.Conn, error)
}

// Apply runs what Plan finds not done, under a lock, each statement by itself: a setup that
// is cut off is finished by the next one. It returns the plan that it worked on, and a
// *Refusal, before the first statement, when an error is among the findings.
func Apply(ctx context.Context, conn *pgx.Conn, cfg *config.Config, talk Talk) (*Setup, error) {
	if _, err := conn.Exec(ctx, "set lock_timeout = 0"); err != nil {
		return nil, fmt.Errorf("prepare setup: %w", err)
	}
	if _, err := conn.Exec(ctx, "set "+names.Quiet); err != nil { // what is published is for the statements below
		return nil, fmt.Errorf("prepare setup: %w", err)
	}
	if _, err := conn.Exec(ctx, "select pg_catalog.pg_advisory_lock($1)", int64(lockKey)); err != nil {
		return nil, fmt.Errorf("wait for another setup: %w", err)
	}
	defer func() {
		// The lock ends with the session at the latest.
		_, _ = conn.Exec(context.WithoutCancel(ctx), "select pg_catalog.pg_advisory_unlock($1)", int64(lockKey))
	}()
	s, err := Plan(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.Findings.Err("set up"); err != nil {
		return s, err
	}
	if talk.Planned != nil {
		talk.Planned(s)
	}
	for _, st := range s.Statements {
		if st.Done {
			continue
		}
		if err := runStatement(ctx, conn, cfg, st, talk); err != nil {
			return s, err
		}
		if talk.Ran != nil {
			talk.Ran(st)
		}
	}
	return s, nil
}

func runStatement(ctx context.Context, conn *pgx.Conn, cfg *config.Config, st Statement, talk Talk) error {
	// Creating a slot waits for transactions, which may take hours, and holds up nobody.
	timeout := cfg.Postgres.LockTimeout
	if st.slot {
		timeout = 0
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("set lock_timeout = %d", timeout.Milliseconds())); err != nil {
		return fmt.Errorf("run setup: %w", err)
	}
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	pid := conn.PgConn().PID()
	go func() { // ends with the statement
		defer close(done)
		watch(watching, pid, st, talk)
	}()
	defer func() { stop(); <-done }()
	var err error
	for range lockTries {
		_, err = conn.Exec(ctx, st.SQL)
		// Roles, parameters and origins belong to the whole server, and our lock to one
		// database: setup of another one may meet us there (XX000: tuple concurrently updated).
		if code := pg.Code(err); code != "55P03" && code != "XX000" {
			break
		}
	}
	if code := pg.Code(err); st.origin && (code == "23505" || code == "42710") {
		return nil
	}
	if err == nil {
		return nil
	}
	head, _, _ := strings.Cut(st.SQL, "\n")
	return fmt.Errorf("run %q: %w", head, err)
}

// watch tells who holds a waiting statement up. It is a courtesy: when the second session
// cannot be had, nothing is told.
func watch(ctx context.Context, pid uint32, st Statement, talk Talk) {
	if talk.Waiting == nil || talk.Observe == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.WithoutCancel(ctx))
		}
	}()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil {
			var err error
			if conn, err = talk.Observe(ctx); err != nil {
				return
			}
		}
		who, err := blockers(ctx, conn, pid)
		if err != nil {
			return
		}
		if who != "" && who != last && ctx.Err() == nil {
			talk.Waiting(st, who)
			last = who
		}
	}
}

func blockers(ctx context.Context, q pg.Querier, pid uint32) (string, error) {
	var who string
	err := q.QueryRow(ctx, `select coalesce(pg_catalog.string_agg('pid ' || a.pid || coalesce(' (' || a.usename || coalesce(', ' || nullif(a.application_name, ''), '')
  || ', open since ' || pg_catalog.to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS') || ' UTC)', ''), ', ' order by a.pid), '')
from pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) b(pid) join pg_catalog.pg_stat_activity a on a.pid = b.pid`, int32(pid)).Scan(&who)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", err
	}
	return who, nil
}
