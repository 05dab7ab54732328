// Package pgtest gives tests a real PostgreSQL server and a database of their own. It is the
// one place where tests of single packages start a server; test/harness has those that the
// acceptance cases stop, kill and restore.
//
//	var server pgtest.Server
//
//	func TestMain(m *testing.M) { pgtest.Main(m, &server) }
//
//	func TestX(t *testing.T) {
//		conn := pgtest.Connect(t, server.Database(t))
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// Server is a throw-away server without fsync, with wal_level logical. The first test that
// asks starts it, Main stops it. The zero value is ready; tests may use it in parallel.
type Server struct {
	// Settings are lines of postgresql.conf.
	Settings []string

	once    sync.Once
	cluster *pgcluster.Cluster
	dir     string
	err     error

	mu        sync.Mutex
	databases int
}

// Main runs the tests of a package, stops the servers they started, and ends the process.
func Main(m *testing.M, servers ...*Server) {
	code := m.Run()
	for _, s := range servers {
		if err := s.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// New is a server of one test, for what belongs to the whole server: slots, roles, settings.
func New(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := &Server{Settings: settings}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Cluster starts the server where it does not run yet. Without PostgreSQL the test ends (Found).
func (s *Server) Cluster(t testing.TB) *pgcluster.Cluster {
	t.Helper()
	s.once.Do(s.start)
	if s.err != nil {
		t.Fatal(s.err)
	}
	if s.cluster == nil {
		Found(t, errors.New("PostgreSQL is missing: make postgres"))
	}
	return s.cluster
}

// Found ends the test when there is no PostgreSQL, as err says: the test is skipped, but fails where CI or
// PGWALTZ_TEST_REQUIRE_POSTGRES is set. nil: there is one.
func Found(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") != "" || os.Getenv("PGWALTZ_TEST_REQUIRE_POSTGRES") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// start leaves cluster nil where there is no PostgreSQL.
func (s *Server) start() {
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		return
	}
	if s.dir, s.err = os.MkdirTemp("", "pgwt-"); s.err != nil { // short: socket paths are limited
		return
	}
	if s.err = os.Chmod(s.dir, 0o711); s.err != nil { // the server's user must get through
		return
	}
	settings := append([]string{"fsync = off", "autovacuum = off", "max_replication_slots = 40", "max_wal_senders = 20"}, s.Settings...)
	c, err := pgcluster.Create(context.Background(), pgcluster.Config{Bin: bin, Dir: filepath.Join(s.dir, "c"), Settings: settings})
	if err == nil {
		err = c.Start(context.Background())
	}
	s.cluster, s.err = c, err
}

func (s *Server) stop() error {
	var err error
	if s.cluster != nil && s.err == nil {
		err = s.cluster.Stop()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
	return err
}

// Database makes a database for the test and returns its connection string, as superuser.
func (s *Server) Database(t testing.TB) (dsn string) {
	t.Helper()
	c := s.Cluster(t)
	s.mu.Lock()
	s.databases++
	name := fmt.Sprintf("db%d", s.databases)
	s.mu.Unlock()
	conn, err := pgx.Connect(t.Context(), c.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	return c.DSN(name)
}

// As is the connection string of another role. The socket trusts every role.
func As(dsn, role string) string { return strings.Replace(dsn, "user=postgres", "user="+role, 1) }

// Connect opens a session that ends with the test.
func Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Exec runs statements one after the other.
func Exec(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
