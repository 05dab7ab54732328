package pg_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// server is the throw-away cluster of this package, started by the first test that asks.
type server struct {
	once    sync.Once
	cluster *pgcluster.Cluster
	dir     string
	err     error
	dbs     atomic.Int32
}

var shared server

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

func (s *server) start() {
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		s.err = err
		return
	}
	if s.dir, s.err = os.MkdirTemp("", "pgw-pg-"); s.err != nil {
		return
	}
	if s.err = os.Chmod(s.dir, 0o711); s.err != nil {
		return
	}
	ctx := context.Background()
	if s.cluster, s.err = pgcluster.Create(ctx, pgcluster.Config{Bin: bin, Dir: filepath.Join(s.dir, "c"), Settings: []string{"fsync = off"}}); s.err == nil {
		s.err = s.cluster.Start(ctx)
	}
}

// dsn makes a database of its own for the test. Without PostgreSQL the test is skipped, but
// fails in CI.
func dsn(t *testing.T) string {
	t.Helper()
	shared.once.Do(shared.start)
	if shared.err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(shared.err)
		}
		t.Skip(shared.err)
	}
	name := fmt.Sprintf("db%d", shared.dbs.Add(1))
	conn, err := pgx.Connect(t.Context(), shared.cluster.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	return shared.cluster.DSN(name)
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pg.Connect(t.Context(), dsn, pg.Options{Region: "eu", Role: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func as(dsn, user string) string { return strings.Replace(dsn, "user=postgres", "user="+user, 1) }
