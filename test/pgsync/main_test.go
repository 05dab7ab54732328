// Package pgsync runs the drop-in as a cron job does: the program by its link name, through a shell, between two servers, as
// a role that owns its tables and nothing else.
package pgsync

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/demo"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var from, to pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &from, &to) }

// site is a source and a destination with the account schema, and a file for them.
type site struct {
	t            *testing.T
	source, dest *pgx.Conn // as superuser
	sourceDSN    string    // of the role that copies
	destDSN      string
	dir, role    string
	pgsync       string // the link
	file         string
}

// newSite makes both databases. The role app owns them and may nothing else.
func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteOf(t, "app", "")
}

// newSiteOf makes both databases for a role that has some attributes.
func newSiteOf(t *testing.T, role, attributes string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), role: role}
	make := func(server *pgtest.Server) (*pgx.Conn, string) {
		dsn := server.Database(t)
		conn := pgtest.Connect(t, dsn)
		pgtest.Exec(t, conn, `do $$ begin create role `+role+` login `+attributes+`; exception when duplicate_object or unique_violation then null; end $$`,
			`do $$ begin execute format('alter database %I owner to `+role+`', current_database()); end $$`, `alter schema public owner to `+role)
		app := pgtest.Connect(t, pgtest.As(dsn, role))
		pgtest.Exec(t, app, demo.AccountSchema())
		return conn, pgtest.As(dsn, role)
	}
	s.source, s.sourceDSN = make(&from)
	s.dest, s.destDSN = make(&to)
	product, err := harness.Product()
	if err != nil {
		t.Fatal(err)
	}
	s.pgsync, s.file = filepath.Join(s.dir, "pgsync"), filepath.Join(s.dir, "pgsync.users.yaml")
	if err := os.Symlink(product, s.pgsync); err != nil {
		t.Fatal(err)
	}
	s.config(nil)
	return s
}

// config writes the example with the DSNs of the site, and with some words replaced.
func (s *site) config(replace map[string]string) {
	s.t.Helper()
	text, err := os.ReadFile("testdata/pgsync.users.example.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	y := strings.NewReplacer("postgresql://replica:secret@global-db:5432/account?sslmode=disable", s.sourceDSN,
		"postgresql://replica:secret@cn-db:5432/account?sslmode=disable", s.destDSN).Replace(string(text))
	// One run and the end, unless a test wants the loop.
	y = strings.Replace(y, "poll_interval: 30s", "poll_interval: 0", 1)
	for old, new := range replace {
		if !strings.Contains(y, old) {
			s.t.Fatalf("the example has no %q", old)
		}
		y = strings.Replace(y, old, new, 1)
	}
	if err := os.WriteFile(s.file, []byte(y), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// cron runs the line of a crontab as cron does: by a shell, from the root folder, without a terminal or an environment.
func (s *site) cron(args string) (log string, code int) {
	s.t.Helper()
	path := filepath.Join(s.dir, "pgsync.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	err := s.command(ctx, args, path).Run()
	text, readErr := os.ReadFile(path)
	if readErr != nil {
		s.t.Fatal(readErr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(text), code
}

// command starts the line; who kills it kills the worker.
func (s *site) command(ctx context.Context, args, log string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+s.pgsync+" --config "+s.file+" "+args+" >> "+log+" 2>&1")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin", "SHELL=/bin/sh"}
	return cmd
}

var stamped = regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S* level=`)

// run is cron where exit code 0 is expected. Each line of the log has a time.
func (s *site) run(args string) string {
	s.t.Helper()
	log, code := s.cron(args)
	if code != 0 {
		s.t.Fatalf("exit code %d:\n%s", code, log)
	}
	for line := range strings.Lines(log) {
		if !stamped.MatchString(line) {
			s.t.Errorf("a line of the log has no time: %s", line)
		}
	}
	return log
}

func (s *site) exec(conn *pgx.Conn, sql ...string) {
	s.t.Helper()
	pgtest.Exec(s.t, conn, sql...)
}

func (s *site) get(conn *pgx.Conn, sql string) (v string) {
	s.t.Helper()
	if err := conn.QueryRow(s.t.Context(), sql).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// rows is a table as text, to compare it as a whole: the hash of all its rows and their number.
func (s *site) rows(conn *pgx.Conn, table string) string {
	return s.get(conn, `select count(*) || ' ' || coalesce(md5(string_agg(t::text, E'\n' order by t::text)), '') from public.`+table+` as t`)
}

func (s *site) same(table string) {
	s.t.Helper()
	if a, b := s.rows(s.source, table), s.rows(s.dest, table); a != b {
		s.t.Errorf("%s is %s in the source and %s in the destination", table, a, b)
	}
}

// users inserts rows n to m into the source.
func (s *site) users(n, m int) {
	s.t.Helper()
	if _, err := s.source.Exec(s.t.Context(), `insert into public.users (username, password, email, version, updated_at, email_verified_at, groups)
select 'user' || i, 'p' || i, 'u' || i || '@example.org', i % 7, now() - i * interval '1 minute', case when i % 2 = 0 then now() end, jsonb_build_array(i)
from generate_series($1::int, $2::int) as i`, n, m); err != nil {
		s.t.Fatal(err)
	}
}
