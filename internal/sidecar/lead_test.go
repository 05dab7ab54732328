package sidecar

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// Of many sidecars that ask at once one leads; when its session ends, one of the others does, and
// the holder of the lead keeps nothing open.
func TestLeadIsHeldByOneSession(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t).Database(t)
	admin := pgtest.Connect(t, dsn)
	pgtest.Exec(t, admin, preflight.SchemaSQL()...)
	const candidates, rounds = 6, 5
	for round := range rounds {
		var leads atomic.Int32
		var group sync.WaitGroup
		for range candidates {
			conn := pgtest.Connect(t, dsn)
			s := &Sidecar{cfg: &config.Config{Region: "eu"}, log: slog.New(slog.DiscardHandler)}
			group.Go(func() {
				for range 3 {
					ok, err := s.tryLead(t.Context(), conn)
					if err != nil {
						t.Error(err)
					}
					if ok {
						leads.Add(1)
						if err := lead.Held(t.Context(), conn, "eu"); err != nil {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		group.Wait()
		if n := leads.Load(); n > 1 || n == 0 {
			t.Fatalf("round %d: %d sessions lead", round, n)
		}
		var state string
		var holds bool
		if err := admin.QueryRow(t.Context(), `select a.state, a.backend_xmin is not null or a.backend_xid is not null or exists (select from pg_locks k where k.pid = a.pid and k.locktype <> 'virtualxid')
from pg_stat_activity a join pgwaltz.lead l on l.pid = a.pid`).Scan(&state, &holds); err != nil || state != "idle" || holds {
			t.Errorf("the session that leads is %q, holds something: %v, %v", state, holds, err)
		}
		// The others stay out while it lives, and the lead is free when it has gone.
		pgtest.Exec(t, admin, `select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
	}
	// The row alone gives nothing: neither another role's session nor a younger one of that pid.
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	for _, row := range []string{"role = 'stranger'", "began = began - interval '1 second'"} {
		if ok, err := lead.Claim(t.Context(), conn, "eu"); err != nil || !ok {
			t.Fatalf("not taken: %v, %v", ok, err)
		}
		if ok, err := lead.Claim(t.Context(), other, "eu"); err != nil || ok {
			t.Fatalf("taken twice: %v, %v", ok, err)
		}
		pgtest.Exec(t, admin, "update pgwaltz.lead set "+row)
		if ok, err := lead.Claim(t.Context(), other, "eu"); err != nil || !ok {
			t.Errorf("%s: not taken over: %v, %v", row, ok, err)
		}
		if err := lead.Held(t.Context(), conn, "eu"); err == nil {
			t.Errorf("%s: the former holder does not notice", row)
		}
		conn, other = pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		pgtest.Exec(t, admin, "update pgwaltz.lead set pid = 0")
	}
	// Whatever keeps the table from being looked at takes nothing away.
	if ok, err := lead.Claim(t.Context(), conn, "eu"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	pgtest.Exec(t, conn, "set lock_timeout = '50ms'")
	pgtest.Exec(t, admin, "begin", "lock table pgwaltz.lead")
	if err := lead.Held(t.Context(), conn, "eu"); err != nil {
		t.Error(err)
	}
	pgtest.Exec(t, admin, "rollback", "drop schema pgwaltz cascade")
	if err := lead.Held(t.Context(), conn, "eu"); err != nil {
		t.Error(err)
	}
	pgtest.Exec(t, admin, preflight.SchemaSQL()...)
	if err := lead.Held(t.Context(), conn, "eu"); err == nil {
		t.Error("a table that was made anew names nobody, and the former holder does not notice")
	}
}
