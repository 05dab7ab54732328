package names

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

func relation(names ...string) *wal.Relation {
	rel := &wal.Relation{Schema: "public", Name: "t"}
	for _, n := range names {
		rel.Columns = append(rel.Columns, wal.Column{Name: n, OID: wal.OIDText})
	}
	return rel
}

func nums(rel *wal.Relation) string {
	var out []int16
	for _, c := range rel.Columns {
		out = append(out, wal.NumOf(c.ID))
	}
	return fmt.Sprint(out)
}

// A name stands for the column that had it where the transaction committed; where two may have had it, for none.
func TestChoose(t *testing.T) {
	t.Parallel()
	text := func(c ...named) []named {
		for i := range c {
			c[i].oid = wal.OIDText
		}
		return c
	}
	list := []naming{
		{from: 100, columns: text(named{num: 1, name: "id"}, named{num: 2, name: "a"}, named{num: 3, name: "b"})},
		{from: 220, notBefore: 200, columns: text(named{num: 1, name: "id"}, named{num: 2, name: "b"}, named{num: 3, name: "a"})},
		{from: 320, notBefore: 300, columns: text(named{num: 1, name: "id"}, named{num: 2, name: "b"}, named{num: 4, name: "a"})},
		{from: 420, notBefore: 400, columns: text(named{num: 1, name: "id"}, named{num: 2, name: "b"})},
	}
	for _, tt := range []struct {
		at   wal.LSN
		cols []string
		want string
	}{
		{150, []string{"id", "a", "b"}, "[1 2 3]"},
		{210, []string{"id", "a", "b"}, "[1 2 3]"},
		{210, []string{"id", "b", "a"}, "[1 2 3]"},
		{299, []string{"id", "b", "a"}, "[1 2 3]"},
		{310, []string{"id", "b", "a"}, ""}, // dropped and added again, about then
		{330, []string{"id", "b", "a"}, "[1 2 4]"},
		{500, []string{"id", "b"}, "[1 2]"},
		{350, []string{"id", "a"}, "[1 4]"}, // the publication leaves b out
		{500, []string{"id", "a", "b"}, "[1 2 3]"},
		{150, []string{"id", "c"}, ""},
		{500, []string{"b", "id"}, ""},
	} {
		rel := relation(tt.cols...)
		ids, known := choose(list, rel, 9, tt.at)
		got := ""
		if known {
			for i := range ids {
				rel.Columns[i].ID = ids[i]
			}
			got = nums(rel)
		}
		if got != tt.want {
			t.Errorf("%v at %d are columns %q, want %q", tt.cols, tt.at, got, tt.want)
		}
	}
}

// Definitions are noted as they come; a description of a table that has passed on is known by them.
func TestNumber(t *testing.T) {
	t.Parallel()
	c := open(t)
	pgtest.Exec(t, c, ColumnSchema, "create table t (id text, a text, b text, g text generated always as (a) stored)")
	var oid uint32
	if err := c.QueryRow(t.Context(), "select 't'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	number := func(at wal.LSN, want string, names ...string) wal.LSN {
		t.Helper()
		rel := relation(names...)
		again, err := Number(t.Context(), c, rel, oid, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := nums(rel); got != want || rel.Numbered() != (again == 0) {
			t.Errorf("%v are %s, to be asked again at %s; want %s", names, got, again, want)
		}
		return again
	}
	for range 2 {
		if err := LookColumns(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	first, err := insertPosition(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	number(first, "[1 2 3]", "id", "a", "b")
	pgtest.Exec(t, c, "alter table t rename a to x", "alter table t rename b to a", "alter table t rename x to b")
	number(first, "[1 2 3]", "id", "a", "b") // as it was then: the WAL has columns in the order of their numbers
	if again := number(first, "[0 0]", "id", "q"); again == 0 {
		t.Error("what is not known is not asked again")
	}
	pgtest.Exec(t, c, "alter table t add z text")
	written, err := insertPosition(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	number(written, "[1 2 3 5]", "id", "b", "a", "z")
	pgtest.Exec(t, c, "alter table t drop z")
	written, err = insertPosition(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c, "alter table t add z text")
	again := number(written, "[0 0 0 0]", "id", "b", "a", "z")
	number(again, "[1 2 3 6]", "id", "b", "a", "z")
	if err := AdoptColumns(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	number(first, "[1 2 3 6]", "id", "b", "a", "z")
}
