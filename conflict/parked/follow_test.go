package parked_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestFollowingIsPaidForWhatFollows: many changes follow their table in some short steps, also where the same was asked while the table was empty. Nobody else
// waits for the session meanwhile: what an applier is dealing with is left alone.
func TestFollowingIsPaidForWhatFollows(t *testing.T) {
	t.Parallel()
	dsn := server.Database(t)
	c, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, "create schema pgwaltz", parked.Schema, "create table big2()", "create table big3()")
	for _, ix := range parked.Indexes() {
		pgtest.Exec(t, c, ix[1])
	}
	pgtest.Exec(t, c, "vacuum analyze pgwaltz.parked", "set statement_timeout = '20s'") // comparing all with all takes minutes
	name := func(n string) wal.RelationName { return wal.RelationName{Schema: "public", Name: n} }
	x := parked.NewIndex()
	apart := parked.Apart(name("big2"), "b", 7)
	group := &parked.Group{Origin: "b", Name: apart, Table: 5}
	var big2, big3 uint32
	if err := c.QueryRow(t.Context(), "select 'big2'::regclass::oid, 'big3'::regclass::oid").Scan(&big2, &big3); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		what, set string
		want      string
		follow    func() ([]wal.RelationName, bool, error)
	}{
		{"by a former name", `table_name = 'big1'`, "big2", func() ([]wal.RelationName, bool, error) {
			return parked.FollowNames(t.Context(), c, "", []wal.RelationName{name("big1")}, []wal.RelationName{name("big2")}, x)
		}},
		{"by a former name that the origin told", `table_name = 'big1'`, "big2", func() ([]wal.RelationName, bool, error) {
			return parked.FollowNames(t.Context(), c, "b", []wal.RelationName{name("big1")}, []wal.RelationName{name("big2")}, x)
		}},
		{"to their table", `table_name = 'big1', table_oid = 'big3'::regclass`, "big3", func() ([]wal.RelationName, bool, error) { return parked.Follow(t.Context(), c, "a", x) }},
		{"to one that has its name again", `table_name = '` + apart.Name + `', sqlstate = '` + parked.ApartState + `'`, "big3", func() ([]wal.RelationName, bool, error) {
			return parked.Rejoin(t.Context(), c, group, name("big3"), big3, "PW006", x)
		}},
	}
	for range 7 { // a plan is kept behind five
		for _, s := range steps {
			if tables, more, err := s.follow(); err != nil || more || len(tables) > 0 {
				t.Fatalf("nothing waits: %s: %v, %v, %v", s.what, tables, more, err)
			}
		}
	}
	pgtest.Exec(t, c, `insert into pgwaltz.parked (origin, schema_name, table_name, key, sqlstate) select 'b', 'public', 'big1', '["' || i || '"]', '42P01' from generate_series(1, 12000) as i`)
	for _, s := range steps {
		pgtest.Exec(t, c, "update pgwaltz.parked set "+s.set)
		pgtest.Exec(t, other, "begin", `select from pgwaltz.parked where key = '["77"]' for update`)
		calls := 0
		for more := true; more; calls++ {
			tables, left, err := s.follow()
			if err != nil || len(tables) > 1 || len(tables) == 1 && tables[0] != name(s.want) {
				t.Fatalf("%s: %v, %v", s.what, tables, err)
			}
			more = left
		}
		if calls < 2 || calls > 20 || !x.Has(name(s.want), `["1"]`) {
			t.Errorf("%s: %d calls, or the index does not know the changes", s.what, calls)
		}
		var n, away int
		if err := c.QueryRow(t.Context(), "select count(*) filter (where table_name = $1), count(*) filter (where table_name <> $1) from pgwaltz.parked", s.want).Scan(&n, &away); err != nil || n != 11999 || away != 1 {
			t.Errorf("%s: %d have followed, %d not, %v", s.what, n, away, err)
		}
		pgtest.Exec(t, other, "rollback")
		if _, _, err := s.follow(); err != nil {
			t.Errorf("%s: %v", s.what, err)
		}
		pgtest.Exec(t, c, "update pgwaltz.parked set table_name = 'big2', table_oid = 0, sqlstate = '42P01'")
	}
}

// Changes that two former names of a table have under one key follow one behind the other, the oldest in front.
func TestFollowFromTwoNames(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", parked.Schema, "create table t3()",
		`insert into pgwaltz.parked (origin, schema_name, table_name, key, table_oid) values ('b', 'public', 't2', '[1]', 't3'::regclass), ('b', 'public', 't1', '[1]', 't3'::regclass), ('b', 'public', 't1', '[2]', 't3'::regclass)`)
	for _, want := range []string{"t1 [1], t3 [1], t3 [2]", "t1 [1], t3 [1], t3 [2]"} {
		if _, more, err := parked.Follow(t.Context(), c, "a", parked.NewIndex()); err != nil || more {
			t.Fatal(more, err)
		}
		var is string
		if err := c.QueryRow(t.Context(), "select string_agg(table_name || ' ' || key, ', ' order by table_name, key) from pgwaltz.parked").Scan(&is); err != nil || is != want {
			t.Errorf("there are %s, %v; want %s", is, err, want)
		}
	}
}
