package copy

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestAway: of a table whose changes were left out, the rows get times that were written meanwhile; those that were read, or applied, get none. It waits
// until what is open is over and merged, and for what is not stamped yet. A table that is left out again meanwhile is looked through again.
func TestAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := pgtest.New(t).Database(t) // the horizon is the server's: transactions of other tests would keep it back
	c := pgtest.Connect(t, dsn)
	entry := func(key string, at, origin string) string {
		return `insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn, plain) values ('public.s', '` + key + `', -1, -9223372036854775808, ` + at + `, true, '` + origin + `', '0/1', '` + origin + `' = 'a')`
	}
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, AbsenceSchema, PartitionSchema, tombstone.Schema, tombstone.PastSchema,
		"create table public.s (id int, part int, v text, primary key (id, part)) partition by list (part)", "create table public.s1 partition of public.s for values in (1)", "create table public.s2 partition of public.s default",
		"create table public.ty (id int primary key, updated_at timestamptz)", "create publication p for table public.s, public.ty with (publish_via_partition_root)",
		// 2,000 rows of 2 kB are some 700 pages: more than one look takes.
		"alter table public.s1 alter v set storage plain", "insert into public.s select g, 1, repeat('x', 2000) from generate_series(1, 2000) g", "insert into public.s values (1, 2, 'old'), (2, 2, 'old'), (3, 2, 'old'), (4, 2, 'old')",
		entry(`["1","2"]`, "9", "b"), entry(`["2","2"]`, "9", "b"), entry(`["3","2"]`, "9", "a"))
	h, _, err := tombstone.ReadHorizon(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	h.At = 500
	name, ty := wal.RelationName{Schema: "public", Name: "s"}, wal.RelationName{Schema: "public", Name: "ty"}
	if err := Absent(ctx, c, LeftByName([]wal.RelationName{name, ty}), h, true); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c, "update public.s set v = 'left' where id = 1990 or part = 2 and id <> 2", "update public.s set v = 'applied' where id = 2 and part = 2",
		`update pgwaltz.tombstone set updated_at = 11 where key = '["2","2"]'`, "insert into public.s values (5, 2, 'new')", "insert into public.ty values (1, now())")
	x, merged := tombstone.NewIndex(0), false
	copier := New(Config{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) },
		Do:      func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error { return f(ctx, c) },
		Stamps:  func(wal.RelationName) StampColumns { return StampColumns{UpdatedAt: "updated_at"} },
		Index:   x, Publication: "p", Merged: func(wal.LSN) bool { return merged }, Region: "a",
		Public: error.Error, Log: slog.New(slog.DiscardHandler),
	})
	copier.aways = map[wal.RelationName]*awayWait{}
	defer copier.hangUp()
	look := func(n wal.RelationName, want bool, why string) {
		t.Helper()
		if ready, err := copier.lookedThrough(ctx, &Job{Table: n}); ready != want || err != nil {
			t.Fatalf("%s: looked through %t: %v", why, ready, err)
		}
	}
	open := pgtest.Connect(t, dsn)
	pgtest.Exec(t, open, "begin", "create table public.other (id int)")
	look(name, false, "a transaction is open")
	pgtest.Exec(t, open, "commit")
	look(name, false, "what was read is not merged")
	pgtest.Exec(t, c, RequestSQL([]wal.RelationName{name}))
	if all, err := LookDue(ctx, c); err != nil || len(all) != 1 || all[0] != name {
		t.Errorf("to be looked through are %v: %v", all, err)
	}
	merged = true
	x.Stamped(1 << 20)
	x.Start(1 << 21)
	stamped := make(chan struct{})
	copier.cfg.Log = slog.New(slog.NewTextHandler(writerFunc(func() {
		select {
		case <-stamped:
		default:
			close(stamped)
			x.Stamped(1 << 21)
			pgtest.Exec(t, c, "insert into public.s values (6, 2, 'later')")
			// It is left out once more while it is looked through.
			if err := Absent(ctx, c, LeftByName([]wal.RelationName{name}), tombstone.Horizon{XID: 1 << 30}, true); err != nil {
				t.Error(err)
			}
		}
	}), nil))
	look(name, true, "all is merged")
	var got string
	entries := `select string_agg(format('%s %s %s %s %s', relation, key, updated_at, plain, lsn), E'\n' order by relation, key) from pgwaltz.tombstone`
	if err := c.QueryRow(ctx, entries).Scan(&got); err != nil {
		t.Fatal(err)
	}
	const want = `public.s ["1","2"] 11 f 0/1FFFFF
public.s ["1990","1"] 500 t 0/1FFFFF
public.s ["2","2"] 11 f 0/1
public.s ["3","2"] 500 t 0/1FFFFF
public.s ["4","2"] 500 t 0/1FFFFF
public.s ["5","2"] 500 t 0/1FFFFF`
	if got != want {
		t.Errorf("the entries are\n%s\nwant\n%s", got, want)
	}
	if !x.May(name, []byte(`["1","2"]`)) || len(x.Blockers(1<<30, []tombstone.Ref{{Relation: name, Key: `["1","2"]`}})) > 0 {
		t.Error("the index does not know the entry, or it is held still")
	}
	var moved bool
	if err := c.QueryRow(ctx, `select xid > $1 and at > 500 from pgwaltz.absence where relid = 'public.s'::regclass`, int64(h.XID)).Scan(&moved); err != nil || !moved {
		t.Errorf("what was left out since is not looked for later: %v", err)
	}
	look(name, true, "the second time")
	if err := c.QueryRow(ctx, entries).Scan(&got); err != nil || got == want {
		t.Errorf("the row that was written since got no entry: %v", err)
	}
	look(ty, true, "a table with a stamp column")
	look(name, true, "nothing was left out")
	// It is left out once more while it waits for what was read to be merged: what is written then lies behind the horizon that it waits with.
	absent := func() {
		t.Helper()
		if err := Absent(ctx, c, LeftByName([]wal.RelationName{name}), h, true); err != nil {
			t.Fatal(err)
		}
	}
	number := func(sql string) (n int) {
		t.Helper()
		if err := c.QueryRow(ctx, sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	absent()
	merged = false
	look(name, false, "what was read is not merged")
	pgtest.Exec(t, c, "insert into public.s values (7, 2, 'left out later')")
	absent()
	merged = true
	const seven = `select count(*) from pgwaltz.tombstone where key = '["7","2"]'`
	look(name, false, "it was left out once more")
	if n := number(seven); n != 0 {
		t.Error("a row behind the horizon was looked at")
	}
	look(name, true, "another turn")
	if n := number(seven); n != 1 {
		t.Error("a row that was left out while the copy waited got no entry")
	}
	// While it is not published there is nothing to do, and nothing is forgotten; nor is anything where it cannot be read.
	absent()
	pgtest.Exec(t, c, "alter publication p drop table public.s")
	look(name, true, "it is not published")
	pgtest.Exec(t, c, "alter publication p add table public.s", "create role blind", "grant usage on schema public, pgwaltz to blind", "grant select on all tables in schema pgwaltz to blind")
	see := copier.cfg.Connect
	copier.cfg.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := see(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, "set role blind")
		}
		return conn, err
	}
	copier.hangUp()
	if ready, err := copier.lookedThrough(ctx, &Job{Table: name}); ready || err == nil {
		t.Errorf("a table that cannot be read was looked through: %t, %v", ready, err)
	}
	if n := number("select count(*) from pgwaltz.absence"); n != 1 {
		t.Errorf("%d are left out, want 1", n)
	}
	copier.cfg.Connect = see
	look(name, true, "it can be read")
	if n := number("select count(*) from pgwaltz.absence"); n != 0 {
		t.Errorf("%d are left out, want none", n)
	}
	if all, err := LookDue(ctx, c); err != nil || len(all) != 0 {
		t.Errorf("to be looked through are %v: %v", all, err)
	}
}

// writerFunc is called for each line.
type writerFunc func()

func (f writerFunc) Write(b []byte) (int, error) {
	f()
	return len(b), nil
}

// A partition that was detached is noted with the horizon of before, also where it was attached again by the next look; tables that are gone are forgotten, and
// a note that came by a dump tells nothing.
func TestAbsent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := server.Database(t)
	c := pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, AbsenceSchema, PartitionSchema, "create table public.t (id int primary key) partition by range (id)",
		"create table public.t1 partition of public.t for values from (0) to (10)", "create table public.t2 partition of public.t for values from (10) to (20)", "create table public.x (id int primary key)",
		"create publication p for table public.t with (publish_via_partition_root)")
	look := func(xid uint64, want string) {
		t.Helper()
		if _, err := Attached(ctx, c, "p", tombstone.Horizon{XID: xid, At: 7}, xid != 0, true, func(wal.RelationName) bool { return false }); err != nil {
			t.Fatal(err)
		}
		var got *string
		if err := c.QueryRow(ctx, `select string_agg(relid::regclass || ' ' || coalesce(xid::text, '-'), ', ' order by relid::regclass::text) from pgwaltz.absence`).Scan(&got); err != nil || got == nil && want != "" || got != nil && *got != want {
			t.Errorf("left out are %v, want %s: %v", got, want, err)
		}
	}
	look(3, "")
	pgtest.Exec(t, c, "alter table public.t detach partition public.t1", "alter table public.t attach partition public.t1 for values from (0) to (10)")
	look(4, "t1 4")
	pgtest.Exec(t, c, "alter table public.t detach partition public.t1", "alter table public.t detach partition public.t2")
	look(0, "t1 4, t2 -")
	pgtest.Exec(t, c, RequestSQL([]wal.RelationName{{Schema: "public", Name: "x"}, {Schema: "public", Name: "t1"}}))
	if err := AbsentExcluded(ctx, c, "p", func(n wal.RelationName) bool { return n.Name == "x" }, tombstone.Horizon{XID: 9}, true); err != nil {
		t.Fatal(err)
	}
	look(5, "t1 4, t2 -, x 9")
	if all, err := LookDue(ctx, c); err != nil || fmt.Sprint(all) != "[public.t1 public.x]" {
		t.Errorf("to be looked through are %v: %v", all, err)
	}
	pgtest.Exec(t, c, "alter table public.t attach partition public.t1 for values from (0) to (10)")
	if all, err := LookDue(ctx, c); err != nil || fmt.Sprint(all) != "[public.t public.x]" {
		t.Errorf("to be looked through are %v: %v", all, err)
	}
	pgtest.Exec(t, c, "drop table public.t2", "create table pgwaltz.h as select * from pgwaltz.absence", "delete from pgwaltz.absence", "insert into pgwaltz.absence select * from pgwaltz.h where relid = 'public.x'::regclass")
	if all, err := LookDue(ctx, c); err != nil || len(all) != 0 {
		t.Errorf("a dump tells of %v: %v", all, err)
	}
	if err := Absent(ctx, c, LeftByName([]wal.RelationName{{Schema: "public", Name: "x"}}), tombstone.Horizon{XID: 11}, true); err != nil {
		t.Fatal(err)
	}
	look(6, "x 11")
	// A name may be another table's by now: both are meant. Nothing is said twice.
	pgtest.Exec(t, c, "create table public.y (id int)")
	var y, x uint32
	if err := c.QueryRow(ctx, "select 'public.y'::regclass::oid, 'public.x'::regclass::oid").Scan(&y, &x); err != nil {
		t.Fatal(err)
	}
	if err := Absent(ctx, c, []Left{{Name: wal.RelationName{Schema: "public", Name: "x"}, OID: y}, {Name: wal.RelationName{Schema: "public", Name: "gone"}, OID: x}}, tombstone.Horizon{XID: 12}, true); err != nil {
		t.Fatal(err)
	}
	look(6, "x 11, y 12")
	pgtest.Exec(t, c, "drop table public.y")
	if err := pruneAbsent(ctx, c); err != nil {
		t.Fatal(err)
	}
	// A partition whose detaching was broken off gets no changes any more as the table's.
	open := pgtest.Connect(t, dsn)
	pgtest.Exec(t, open, "begin isolation level repeatable read", "select * from public.t")
	pgtest.Exec(t, c, "set statement_timeout = '500ms'")
	if _, err := c.Exec(ctx, "alter table public.t detach partition public.t1 concurrently"); err == nil {
		t.Fatal("it was detached beside a reader")
	}
	pgtest.Exec(t, c, "reset statement_timeout")
	pgtest.Exec(t, open, "rollback")
	look(7, "t1 7, x 11")
	pgtest.Exec(t, c, "alter table public.t detach partition public.t1 finalize", "drop table public.t1")
	pgtest.Exec(t, c, "drop table public.x")
	if err := pruneAbsent(ctx, c); err != nil {
		t.Fatal(err)
	}
	look(6, "")
}
