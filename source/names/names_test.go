package names

import (
	"fmt"
	"maps"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

func public(s string) wal.RelationName { return wal.RelationName{Schema: "public", Name: s} }

func open(t *testing.T) *pgx.Conn {
	t.Helper()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, tombstone.LedgerSchema, tombstone.Schema, tombstone.PastSchema, counterpart.Schema)
	return c
}

// A former name leads to the table, through several names and a renamed schema, and not where another
// table has the name by now, or the table is gone.
func TestFormer(t *testing.T) {
	t.Parallel()
	c := open(t)
	look := func(want string) {
		t.Helper()
		if err := Look(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		list, err := Former(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, r := range list {
			got[r.Was.String()] = r.Is.String()
		}
		if fmt.Sprint(got) != want {
			t.Errorf("former names are %v, want %s", got, want)
		}
	}
	pgtest.Exec(t, c, "create schema app", "create table app.t (id int)", "create table public.u (id int)", "create temp table tmp (id int)")
	look("map[]")
	pgtest.Exec(t, c, "alter table public.u rename to v", "alter schema app rename to prog")
	look("map[app.t:prog.t public.u:public.v]")
	pgtest.Exec(t, c, "alter table public.v rename to w", "create view public.u as select 1")
	look("map[app.t:prog.t public.u:public.w public.v:public.w]")
	pgtest.Exec(t, c, "create table public.v (id int)", "drop table prog.t")
	look("map[public.u:public.w]")
	pgtest.Exec(t, c, "drop table public.v", "drop view public.u", "alter table public.w rename to u")
	look("map[public.w:public.u]")
	pgtest.Exec(t, c, "update pgwaltz.name set left_at = now() - interval '100 days' where left_at is not null")
	look("map[]")
}

// A table that takes the name of a published one is published with it, in the same transaction, with its
// replica identity; other tables, and what cannot be published, are left alone.
func TestRepublish(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, RepublishSQL("the 'pub'"), RepublisherSQL, "create table public.t (id int primary key)", "create table public.u (id int primary key)",
		"alter table public.t replica identity full", `create publication "the 'pub'" for table public.t, public.u`)
	if err := SetPublished(t.Context(), c, map[wal.RelationName]uint32{public("t"): oid(t, c, "public.t"), public("u"): oid(t, c, "public.u")}); err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		var got string
		if err := c.QueryRow(t.Context(), `select coalesce(string_agg(c.relname::text || c.relreplident::text, ' ' order by c.relname), '') from pg_publication_rel r join pg_class c on c.oid = r.prrelid`).Scan(&got); err != nil || got != want {
			t.Errorf("published are %q (%v), want %q", got, err, want)
		}
	}
	look("tf ud")
	pgtest.Exec(t, c, "create table public.t_new (id int)", "begin", "alter table public.t rename to t_old", "alter table public.t_new rename to t")
	look("tf t_oldf ud")
	pgtest.Exec(t, c, "rollback")
	look("tf ud")
	pgtest.Exec(t, c, "drop table public.t", "create table public.t as select 1 as id", "drop table public.u", "create table public.u (id int)", "create temp table t2 (id int)")
	look("tf") // the new u has no identity: its updates would fail
	pgtest.Exec(t, c, "alter table public.u add primary key (id)")
	look("tf ud")
	pgtest.Exec(t, c, "drop table public.u", "set "+Quiet, "create table public.u (id int primary key)", "reset pgwaltz.republish")
	look("tf")
	pgtest.Exec(t, c, `drop publication "the 'pub'"`, "drop table public.t", "create table public.t (id int)")

	// It goes with the schema.
	pgtest.Exec(t, c, "drop schema pgwaltz cascade", "create table public.v (id int primary key)")
	var left int
	if err := c.QueryRow(t.Context(), "select count(*) from pg_event_trigger where evtname = $1", Republisher).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d event triggers are left, %v", left, err)
	}
}

func oid(t *testing.T, c *pgx.Conn, name string) uint32 {
	t.Helper()
	var n uint32
	if err := c.QueryRow(t.Context(), "select $1::text::regclass::oid", name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What was published, and what is to be copied, is kept as it was told last.
func TestPublishedAndDue(t *testing.T) {
	t.Parallel()
	c := open(t)
	for _, want := range []map[wal.RelationName]uint32{{}, {public("t"): 7, public("u"): 8}, {public("t"): 9}, {}} {
		if err := SetPublished(t.Context(), c, want); err != nil {
			t.Fatal(err)
		}
		if got, err := Published(t.Context(), c); err != nil || !maps.Equal(got, want) {
			t.Errorf("published are %v, %v, want %v", got, err, want)
		}
	}
	for _, want := range []string{"t", "u", ""} {
		n, text := wal.RelationName{}, ""
		if want != "" {
			n, text = public(want), "because of "+want
		}
		if err := SetLeftOut(t.Context(), c, n, text); err != nil {
			t.Fatal(err)
		}
		if got, why, err := LeftOut(t.Context(), c); err != nil || got != n || why != text {
			t.Errorf("left out is %v %q, %v, want %v %q", got, why, err, n, text)
		}
	}
	if err := SetDue(t.Context(), c, []wal.RelationName{public("t"), public("new"), public("t")}); err != nil {
		t.Fatal(err)
	}
	if err := Settle(t.Context(), c, public("t")); err != nil {
		t.Fatal(err)
	}
	if got, err := Due(t.Context(), c); err != nil || len(got) != 1 || got[0] != public("new") {
		t.Errorf("due are %v, %v, want public.new", got, err)
	}
}

// On another server the numbers of tables may be those of any other tables: names lead nowhere by them.
func TestAdopt(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, "create table public.t (id int)", "create table public.u (id int)",
		`insert into pgwaltz.name (schema_name, table_name, table_oid, published, left_at) values ('public', 't', 'public.u'::regclass, 'public.u'::regclass, null), ('public', 'former', 'public.u'::regclass, 0, now()), ('public', 'gone', 'public.t'::regclass, 'public.t'::regclass, now())`)
	if err := Adopt(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := Look(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if list, err := Former(t.Context(), c); err != nil || len(list) != 0 {
		t.Errorf("former names are %v, %v, want none", list, err)
	}
	if got, err := Published(t.Context(), c); err != nil || !maps.Equal(got, map[wal.RelationName]uint32{public("t"): oid(t, c, "public.t")}) {
		t.Errorf("published are %v, %v, want t by its number here", got, err)
	}
}

// How a table was published outlives what is known of other tables, until it is accepted as it is.
func TestManners(t *testing.T) {
	t.Parallel()
	c := open(t)
	want := func(n int, what string) {
		t.Helper()
		got, err := Manners(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != n || n > 0 && fmt.Sprint(got[public("t")]) != what {
			t.Errorf("manners are %v", got)
		}
	}
	set := func(tables map[wal.RelationName]Manner) {
		t.Helper()
		if err := SetManners(t.Context(), c, tables); err != nil {
			t.Fatal(err)
		}
	}
	want(0, "")
	set(map[wal.RelationName]Manner{public("t"): {At: "1"}, public("u"): {At: "1"}})
	set(map[wal.RelationName]Manner{public("t"): {At: "2", Filter: "f", Leaves: true}})
	want(2, "{2 f true}")
	if err := AcceptManners(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want(0, "")
}

// The catalog says whether a table has the name by which the WAL has it, and whether it may be new as a partition.
func TestStands(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, "create table t (id int)", "create table p (id int) partition by list (id)", "create table p1 partition of p for values in (1)", "create view v as select 1")
	stands := func(table, name string, want Standing) {
		t.Helper()
		var oid uint32
		if err := c.QueryRow(t.Context(), "select coalesce(to_regclass($1)::oid, 0)", table).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		got, err := Stands(t.Context(), c, public(name), oid)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s, by the name %s, is %+v, want %+v", table, name, got, want)
		}
	}
	stands("t", "t", Standing{Named: true, Whole: true})
	stands("t", "s", Standing{Whole: true})
	stands("p", "p", Standing{Named: true})
	stands("p1", "p1", Standing{Named: true})
	stands("v", "v", Standing{})
	stands("gone", "gone", Standing{})
	pgtest.Exec(t, c, "alter table p detach partition p1", "alter table p attach partition t for values in (2)")
	stands("p1", "p1", Standing{Named: true, Whole: true})
	stands("t", "t", Standing{Named: true})
}
