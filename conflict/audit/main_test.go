package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// The table as setup makes it.
const conflictTable = `CREATE SCHEMA pgwaltz;
CREATE TABLE pgwaltz.conflict (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id uuid NOT NULL UNIQUE,
 detected_at timestamptz NOT NULL DEFAULT now(), region text, schema_name text, table_name text, key jsonb, type text, verdict text, reason text,
 winner text, loser text, local_stamp text, remote_stamp text, base_stamp text, local_row jsonb, remote_row jsonb, origin text, origin_xid bigint,
 commit_lsn pg_lsn, commit_time timestamptz, local_xid bigint, local_lsn pg_lsn)`

var cluster *pgcluster.Cluster // started once for the package by TestMain

func TestMain(m *testing.M) { os.Exit(withCluster(m)) }

func withCluster(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pgwaltz-audit-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	cluster, err = pgcluster.Create(ctx, pgcluster.Config{Bin: bin, Dir: filepath.Join(dir, "pg"), Settings: []string{"fsync = off"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := cluster.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cluster.Stop()
	return m.Run()
}

// database makes a database of the test's own with the log's table in it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	ctx := t.Context()
	admin, err := pgx.Connect(ctx, cluster.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	name := fmt.Sprintf("t%x", []byte(t.Name())[:min(24, len(t.Name()))])
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, cluster.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(ctx, conflictTable); err != nil {
		t.Fatal(err)
	}
	return conn
}
