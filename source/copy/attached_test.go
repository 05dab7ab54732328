package copy

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Partitions that were attached with rows are found once, and copied; others are not.
func TestAttached(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	look := func(want string) {
		t.Helper()
		found, err := Attached(t.Context(), c, "p", tombstone.Horizon{}, false, true, func(n wal.RelationName) bool { return n.Name == "excluded" })
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(found); got != want {
			t.Errorf("attached are %s, want %s", got, want)
		}
	}
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, PartitionSchema, AbsenceSchema,
		"create table public.t (id int primary key) partition by range (id)", "create table public.t0 partition of public.t for values from (0) to (10)",
		"insert into public.t values (1)", "create publication p for table public.t with (publish_via_partition_root)")
	pgtest.Exec(t, c, "create table public.excluded (id int primary key) partition by range (id)", "alter publication p add table public.excluded")
	look("[]") // the whole table is copied
	pgtest.Exec(t, c, "create table public.excluded0 (id int primary key)", "insert into public.excluded0 values (1)", "alter table public.excluded attach partition public.excluded0 default")
	pgtest.Exec(t, c, "create table public.t1 partition of public.t for values from (10) to (20)", "insert into public.t values (11)",
		"create table public.t2 (id int primary key)", "insert into public.t2 values (21)", "alter table public.t attach partition public.t2 for values from (20) to (30)")
	look("[public.t2]")
	look("[]")
	pgtest.Exec(t, c, "alter table public.t detach partition public.t2", "insert into public.t2 values (22)", "alter table public.t attach partition public.t2 for values from (20) to (30)",
		"create table public.s (id int primary key) partition by range (id)", "create table public.s0 partition of public.s for values from (30) to (40)",
		"insert into public.s values (31)", "alter table public.t attach partition public.s for values from (30) to (40)")
	look("[public.s0 public.t2]")
	pgtest.Exec(t, c, "alter table public.t detach partition public.t2")
	look("[]")
	var jobs string
	if err := c.QueryRow(t.Context(), "select string_agg(table_name || ' ' || state, ',' order by table_name) from pgwaltz.copy").Scan(&jobs); err != nil || jobs != "s0 pending,t2 pending" {
		t.Errorf("asked for are %s (%v)", jobs, err)
	}
}
