package parked_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A name under which changes wait by themselves says by which name they came, and of which table they are.
func TestApart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"t", "t [1 of b]", ""} {
		came := wal.RelationName{Schema: "s", Name: name}
		if got, table, ok := parked.ParseApart(parked.Apart(came, "eu-1", 4000000000)); !ok || got != came || table != 4000000000 {
			t.Errorf("%q: got %v, %d, %v", name, got, table, ok)
		}
	}
	for _, name := range []string{"t", "t [x of b]", "t [1", "t [99999999999 of b]"} {
		if _, _, ok := parked.ParseApart(wal.RelationName{Schema: "s", Name: name}); ok {
			t.Errorf("%q is taken for such a name", name)
		}
	}
}

// A change that waits under a name is let wait by itself, is found by the name all the same, and goes back under the name of its
// table; one that something else waits in front of stays.
func TestRejoin(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", parked.Schema, "create table t (id int)", `insert into pgwaltz.parked (origin, schema_name, table_name, key, sqlstate, wanted)
select 'b', 'public', 'u', '[' || i || ']', '42P01', true from generate_series(1, 3) as i`)
	var oid uint32
	var ids []int64
	if err := c.QueryRow(t.Context(), "select 't'::regclass::oid, (select array_agg(id order by id) from pgwaltz.parked)").Scan(&oid, &ids); err != nil {
		t.Fatal(err)
	}
	u, is := wal.RelationName{Schema: "public", Name: "u"}, wal.RelationName{Schema: "public", Name: "t"}
	x := parked.NewIndex()
	for _, id := range ids {
		if err := parked.SetApart(t.Context(), c, id, parked.Apart(u, "b", 7), oid, "why", x); err != nil {
			t.Fatal(err)
		}
	}
	if !x.Has(parked.Apart(u, "b", 7), "[1]") || x.Any(u) {
		t.Error("the index knows another name")
	}
	if list, err := parked.List(t.Context(), c, parked.Filter{Table: "public.u"}); err != nil || len(list) != 3 || list[0].State != parked.ApartState {
		t.Errorf("found by the name by which they came: %v, %v", list, err)
	}
	groups, err := parked.Groups(t.Context(), c, 10)
	if err != nil || len(groups) != 1 || groups[0].Is != is || groups[0].Table != oid || groups[0].Origin != "b" {
		t.Fatalf("groups are %v, %v", groups, err)
	}
	pgtest.Exec(t, c, `insert into pgwaltz.parked (origin, schema_name, table_name, key) values ('c', 'public', 't', '[2]')`)
	tables, _, err := parked.Rejoin(t.Context(), c, &groups[0], is, oid, "PW006", x)
	if err != nil || len(tables) != 1 || tables[0] != is || !x.Has(is, "[1]") || x.Has(is, "[2]") {
		t.Errorf("they have followed to %v, %v", tables, err)
	}
	var left string
	if err := c.QueryRow(t.Context(), "select string_agg(concat_ws(' ', origin, table_name, key, sqlstate, wanted), ', ' order by origin, key) from pgwaltz.parked").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if want := "b t [1] PW006 f, b u [7 of b] [2] PW007 f, b t [3] PW006 f, c t [2]  f"; left != want {
		t.Errorf("there are %s; want %s", left, want)
	}
}
