package pgcluster_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

func TestClusterLifeLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgwaltz-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	c, err := pgcluster.Create(t.Context(), pgcluster.Config{Bin: bin, Dir: filepath.Join(dir, "eu"), Settings: []string{"fsync = off"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	pid := c.PID()
	conn, err := pgx.Connect(t.Context(), c.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var level, fsync string
	err = conn.QueryRow(t.Context(), "select current_setting('wal_level'), current_setting('fsync')").Scan(&level, &fsync)
	if err != nil || level != "logical" || fsync != "off" {
		t.Fatalf("wal_level %q, fsync %q, error %v", level, fsync, err)
	}
	conn.Close(context.Background())
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatalf("a second stop: %v", err)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil {
		t.Fatalf("server process %d is still there", pid)
	}
}

func TestFindBinNamesTheRemedy(t *testing.T) {
	t.Parallel()
	_, err := pgcluster.FindBin(t.TempDir())
	var missing *pgcluster.NotFoundError
	if !errors.As(err, &missing) || missing.Hint() == "" {
		t.Fatalf("error %v", err)
	}
}
