package harness

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestMain(m *testing.M) {
	RunChild()
	code := m.Run()
	RemoveTemplates()
	RemoveProduct()
	os.Exit(code)
}

func binaries(t *testing.T) Binaries {
	t.Helper()
	bin, err := FindBinaries()
	pgtest.Found(t, err)
	return bin
}

func startCluster(t *testing.T, name string) *Cluster {
	t.Helper()
	bin := binaries(t)
	room, err := NewRoom()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { room.Close() })
	k, err := NewCluster(room, bin, ClusterConfig{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	if err := k.Start(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, TailFile(k.LogPath, 20))
	}
	return k
}

func TestClusterStartAndStop(t *testing.T) {
	t.Parallel()
	k := startCluster(t, "x")
	ctx := t.Context()
	if _, err := k.PSQL(ctx, "postgres", "create table t(id int);"); err != nil {
		t.Fatal(err)
	}
	for i, mode := range []StopMode{StopFast, StopImmediate, StopKill, StopSmart} {
		if _, err := k.PSQL(ctx, "postgres", "insert into t values (1);"); err != nil {
			t.Fatal(err)
		}
		if err := k.Stop(ctx, mode, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if k.Running() {
			t.Fatalf("still running after %s", mode)
		}
		if err := k.Start(ctx); err != nil {
			t.Fatalf("start after %s: %v", mode, err)
		}
		out, err := k.PSQL(ctx, "postgres", "select count(*) from t;")
		if err != nil || strings.TrimSpace(out) != string(rune('1'+i)) {
			t.Fatalf("after %s: %q, %v", mode, out, err)
		}
	}
}

func TestClusterFreeze(t *testing.T) {
	t.Parallel()
	k := startCluster(t, "x")
	if err := k.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := k.PSQL(ctx, "postgres", "select 1;"); err == nil {
		t.Fatal("a frozen cluster answered")
	}
	k.Continue()
	if _, err := k.PSQL(t.Context(), "postgres", "select 1;"); err != nil {
		t.Fatal(err)
	}
}

func TestClustersDifferInIdentity(t *testing.T) {
	t.Parallel()
	var ids []string
	for _, name := range []string{"x", "y"} {
		out, err := startCluster(t, name).PSQL(t.Context(), "postgres", "select system_identifier from pg_control_system();")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, out)
	}
	if ids[0] == ids[1] {
		t.Fatal("two clusters have one system identifier")
	}
}

func TestSQLState(t *testing.T) {
	t.Parallel()
	k := startCluster(t, "x")
	for sql, want := range map[string]string{"select 1/0;": "22012", "select * from nothing;": "42P01", "select 1;": ""} {
		got, err := k.SQLState(t.Context(), "postgres", sql)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", sql, got, err, want)
		}
	}
}

func TestSessionHoldsTransaction(t *testing.T) {
	t.Parallel()
	k := startCluster(t, "x")
	ctx := t.Context()
	if _, err := k.PSQL(ctx, "postgres", "create table t(id int);"); err != nil {
		t.Fatal(err)
	}
	s, err := k.OpenSession("postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Run(ctx, "begin; insert into t values (1)"); err != nil {
		t.Fatal(err)
	}
	if out, _ := k.PSQL(ctx, "postgres", "select count(*) from t;"); strings.TrimSpace(out) != "0" {
		t.Fatalf("an open transaction is visible: %q", out)
	}
	if out, err := s.Run(ctx, "commit; select count(*) from t"); err != nil || out != "1" {
		t.Fatalf("got %q, %v", out, err)
	}
	if _, err := s.Run(ctx, "select 1/0"); err == nil {
		t.Fatal("an error went unnoticed")
	}
	if out, err := s.Run(ctx, "select 7"); err != nil || out != "7" {
		t.Fatalf("after an error: %q, %v", out, err)
	}
}

func TestCopyAndRestore(t *testing.T) {
	t.Parallel()
	k := startCluster(t, "x")
	ctx := t.Context()
	steps := []func() error{
		func() error { _, err := k.PSQL(ctx, "postgres", "create table t(id int);"); return err },
		func() error { return k.Stop(ctx, StopFast, 20*time.Second) },
		func() error { return k.Copy("old") },
		func() error { return k.Start(ctx) },
		func() error { _, err := k.PSQL(ctx, "postgres", "insert into t values (1);"); return err },
		func() error { return k.Stop(ctx, StopFast, 20*time.Second) },
		func() error { return k.Restore("old") },
		func() error { return k.Start(ctx) },
	}
	for i, s := range steps {
		if err := s(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if out, err := k.PSQL(ctx, "postgres", "select count(*) from t;"); err != nil || strings.TrimSpace(out) != "0" {
		t.Fatalf("got %q, %v", out, err)
	}
}
