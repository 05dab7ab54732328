package pgsync

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/pgsync"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestTheExampleIsUnderstood(t *testing.T) {
	t.Parallel()
	f, err := pgsync.Load("testdata/pgsync.users.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	j := f.Jobs[0]
	if j.Name != "users_one_way" || j.Schema != "public" || j.BatchSize != 5000 || !j.Snapshot || j.PollInterval != 30*time.Second ||
		len(j.Tables) != 1 || j.Tables[0].Delete || len(j.Tables[0].Columns) != 18 {
		t.Errorf("read as %+v", j)
	}
}

// The whole copy as a role that owns its tables only: all rows, version and updated_at as they are, and the generated
// column, which the file names, right.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.users(1, 12_000)
	log := s.run("--once")
	s.same("users")
	if !strings.Contains(log, "rows=12000") {
		t.Errorf("the log does not say how many rows were copied:\n%s", log)
	}
	s.exec(s.source, `update public.users set password = 'new' where username = 'user77'`, `delete from public.users where username = 'user78'`)
	s.users(12_001, 12_010)
	s.run("--once")
	if n := s.get(s.dest, `select count(*)::text from public.users`); n != "12010" { // delete: false
		t.Errorf("the destination has %s rows", n)
	}
	s.exec(s.dest, `delete from public.users where username = 'user78'`)
	s.same("users")
	if n := s.get(s.dest, `select count(*)::text from pgwaltz.conflict`); n != "0" {
		t.Errorf("%s conflicts are in the audit log of a copy without any", n)
	}
	if n := s.get(s.dest, `select count(*)::text from pgwaltz.poll_stage`); n != "0" {
		t.Errorf("%s pages are left in the stage", n)
	}
}

// Killed while it reads, or while it applies, the copy has changed nothing that can be seen; the next start goes on.
func TestKilledOnceShowsNothingAndGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.config(map[string]string{"batch_size: 5000": "batch_size: 100"})
	s.users(1, 5_000)
	s.run("--once")
	before := s.rows(s.dest, "users")
	s.exec(s.source, `update public.users set password = password || '!'`)
	s.users(5_001, 8_000)

	s.killOnce(func(ctx context.Context) (bool, string, error) {
		n := s.get(s.dest, `select count(*)::text from pgwaltz.poll_stage`)
		return n != "0" && n != "1", n + " pages are staged", nil
	})
	if now := s.rows(s.dest, "users"); now != before {
		t.Errorf("killed while it read, the copy shows %s instead of %s", now, before)
	}
	// A lock holds the copy while its last row is to be written.
	locker := pgtest.Connect(t, s.dest.Config().ConnString()) // pg_stat_activity stands still within a transaction
	s.exec(locker, `begin`, `select from public.users where username = 'user4999' for update`)
	s.killOnce(func(ctx context.Context) (bool, string, error) {
		n := s.get(s.source, `select count(*)::text from pg_stat_activity where application_name = 'pgwaltz_pgsync_source' and datname = current_database() and backend_xmin is not null and xact_start < clock_timestamp() - interval '300 ms'`)
		return n != "0", "it does not apply", nil
	})
	s.exec(locker, `rollback`)
	if now := s.rows(s.dest, "users"); now != before {
		t.Errorf("killed while it applied, the copy shows %s instead of %s", now, before)
	}
	if log := s.run("--once"); !strings.Contains(log, "goes on") {
		t.Errorf("it began again:\n%s", log)
	}
	s.same("users")
}

// killOnce starts a whole copy and kills it when until says so.
func (s *site) killOnce(until func(context.Context) (bool, string, error)) {
	s.t.Helper()
	cmd := s.command(s.t.Context(), "--once", filepath.Join(s.dir, "killed.log"))
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	err := harness.Poll(s.t.Context(), time.Minute, time.Millisecond, until)
	killed := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if err != nil || killed != nil {
		s.t.Fatalf("%v; kill: %v\n%s", err, killed, harness.TailFile(filepath.Join(s.dir, "killed.log"), 20))
	}
	s.ended()
}

// ended waits for the end of a killed worker's sessions: the server has to notice.
func (s *site) ended() {
	s.t.Helper()
	if err := harness.Poll(s.t.Context(), time.Minute, 10*time.Millisecond, func(context.Context) (bool, string, error) {
		n := s.get(s.dest, `select count(*)::text from pg_stat_activity where application_name like 'pgwaltz_pgsync%' and datname = current_database()`)
		return n == "0", n + " sessions are left", nil
	}); err != nil {
		s.t.Fatal(err)
	}
}
