package rowkey_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// server is the one PostgreSQL of this package's tests; each test has a database of its own.
var server = sync.OnceValues(func() (*pgcluster.Cluster, error) {
	dir, err := os.MkdirTemp("", "pgw-rowkey-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		return nil, err
	}
	serverDir = dir
	c, err := pgcluster.Create(context.Background(), pgcluster.Config{Dir: filepath.Join(dir, "c"), Bin: bin, Settings: []string{"fsync = off"}})
	if err != nil {
		return nil, err
	}
	return c, c.Start(context.Background())
})

var (
	serverDir string
	databases atomic.Int32
)

func TestMain(m *testing.M) {
	code := m.Run()
	if serverDir != "" {
		if c, err := server(); err == nil {
			c.Stop()
		}
		os.RemoveAll(serverDir)
	}
	os.Exit(code)
}

// connect opens a session as the product does, in a database of its own.
func connect(t *testing.T, ddl ...string) *pgx.Conn {
	t.Helper()
	if testing.Short() {
		t.Skip("needs PostgreSQL")
	}
	c, err := server()
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	root, err := pgx.Connect(t.Context(), c.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close(context.Background())
	name := fmt.Sprintf("db%d", databases.Add(1))
	if _, err := root.Exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	conn, err := pg.Connect(t.Context(), c.DSN(name), pg.Options{Region: "eu", Role: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, s := range append([]string{"set search_path = public"}, append(ddl, "set search_path = ''")...) {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return conn
}
