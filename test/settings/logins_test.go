package settings

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// logins: who connects to the database, with what, and for how long it waits there.
func logins(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, c := s.pair.A, s.pair.A.Sidecar
	s.sql(a, "create role runtime login replication password 'it''s \\ \"odd\" & 100% = ü#1'")
	s.must(a.Cluster.PrependHBA("host all,replication runtime 127.0.0.1/32 scram-sha-256"))
	s.sql(a, "select pg_reload_conf()")
	right, wrong := `it's \ "odd" & 100% = ü#1`, "nothing like it"
	plain := strings.Replace(a.Cluster.DSN(a.Database), "user=postgres", "user=runtime", 1)
	s.set(c, "postgres.dsn", plain)

	// admin_dsn: what setup makes is the administrator's.
	s.set(c, "postgres.admin_dsn", nil)
	passwordFile := s.write("password", right)
	s.set(c, "postgres.password_file", passwordFile)
	s.cli(a, 4, "setup", "grant create")
	s.give(a, map[string]any{"postgres.admin_dsn": a.Cluster.DSN(a.Database)})
	s.cli(a, 0, "setup")
	s.want(a, "select nspowner::regrole from pg_namespace where nspname = 'pgwaltz'", "postgres")
	s.sql(a, "drop schema pgwaltz cascade")
	s.set(c, "postgres.admin_dsn", nil)
	s.give(a, map[string]any{"postgres.admin_dsn_file": s.write("admin", a.Cluster.DSN(a.Database))})
	s.cli(a, 0, "setup")
	s.want(a, "select nspowner::regrole from pg_namespace where nspname = 'pgwaltz'", "postgres")

	// Passwords, in files and variables, with characters that need quotes everywhere.
	for text, code := range map[string]int{right: 0, wrong: 5} {
		for _, dsn := range []string{plain, "postgres://runtime@127.0.0.1:" + port(plain) + "/" + a.Database + "?sslmode=disable"} {
			s.set(c, "postgres.dsn", dsn)
			s.set(c, "postgres.password_file", s.write("password", text))
			s.cli(a, code, "check", "!"+text)
			s.set(c, "postgres.password_file", nil)
			if s.from == env {
				s.set(c, "postgres.password", text)
				s.cli(a, code, "check", "!"+text)
				s.set(c, "postgres.password", nil)
			}
			s.set(c, "postgres.dsn", nil)
			s.set(c, "postgres.dsn_file", s.write("dsn", dsn))
			s.set(c, "postgres.password_file", s.write("password", text))
			s.cli(a, code, "check", "!"+text)
			s.set(c, "postgres.dsn_file", nil)
			s.set(c, "postgres.password_file", nil)
		}
	}
	s.Cleanup(func() {
		if !s.Failed() {
			s.proofs.add("postgres.password_file", "postgres.dsn_file")
			if s.from == env {
				s.proofs.add("postgres.password")
			}
		}
	})
	rotate(s, plain, right)
	s.set(c, "postgres.dsn", a.Cluster.DSN(a.Database))

	// unbounded_wal: said on purpose, or an error.
	s.set(c, "postgres.unbounded_wal", false)
	s.cli(a, 4, "check", "max_slot_wal_keep_size")
	s.give(a, map[string]any{"postgres.unbounded_wal": true})
	s.cli(a, 0, "check", "!max_slot_wal_keep_size")

	// lock_timeout: how long setup waits for a table that somebody has locked.
	s.sql(a, "create table late(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	lock, err := a.Cluster.OpenSession(a.Database)
	s.must(err)
	defer lock.Close()
	_, err = lock.Run(s.Context(), "begin; lock table late in access exclusive mode")
	s.must(err)
	s.give(a, map[string]any{"postgres.lock_timeout": "400ms"})
	began := time.Now()
	res, err := c.CLI(s.Context(), "setup")
	s.must(err)
	if res.Code == 0 || !strings.Contains(res.Stderr, "lock timeout") || time.Since(began) > 9*time.Second {
		s.Errorf("setup with a locked table: code %d after %s: %s", res.Code, time.Since(began), res.Stderr)
	}
}

func port(dsn string) string {
	_, rest, _ := strings.Cut(dsn, "port=")
	p, _, _ := strings.Cut(rest, " ")
	return p
}

// rotate changes the password below a sidecar that runs: the server's first, the file later. The
// sidecar waits meanwhile, and goes on by itself.
func rotate(s *scene, dsn, old string) {
	if s.from == env {
		return // the environment of a process does not change
	}
	a, c := s.pair.A, s.pair.A.Sidecar
	s.set(c, "postgres.dsn", dsn)
	file := s.write("rotated", old)
	s.set(c, "postgres.password_file", file)
	s.run(a)
	working := func() (bool, string) {
		st, err := c.Status(s.Context())
		if err != nil {
			return false, err.Error()
		}
		return c.Running() && st.Outbound != nil && st.Outbound.SlotActive && st.LastError == nil, fmt.Sprintf("%+v", st.LastError)
	}
	s.within("the sidecar to work", working)
	s.sql(a, "alter role runtime password 'the next one'")
	s.sql(a, "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'runtime'")
	s.within("the sidecar to be refused", func() (bool, string) {
		st, err := c.Status(s.Context())
		if err != nil {
			return false, err.Error()
		}
		return st.State == status.Down && st.LastError != nil && strings.Contains(st.LastError.Message, "28P01"), fmt.Sprintf("%+v", st.LastError)
	})
	s.must(os.WriteFile(file, []byte("the next one\n"), 0o600))
	s.within("the sidecar to work with the new password", working)
	if text := s.log(a); strings.Contains(text, "the next one") || strings.Contains(text, old) {
		s.Error("a password is in the log")
	}
	s.sql(a, "alter role runtime password '"+strings.ReplaceAll(old, "'", "''")+"'")
	_, err := c.Stop(s.Context(), 30*time.Second)
	s.must(err)
	s.set(c, "postgres.password_file", nil)
}
