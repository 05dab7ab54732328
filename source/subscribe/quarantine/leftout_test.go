package quarantine

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Which tables of an origin were left out is known until it sends them again, however often they come, whatever becomes of the
// quarantine, and for a bounded number of names.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, LeftOutSchema, LeftOutSchema)
	var s Store
	name := func(n int) wal.RelationName { return wal.RelationName{Schema: "public", Name: fmt.Sprintf("t%04d", n)} }
	note := func(origin string, n wal.RelationName) {
		t.Helper()
		if err := s.Note(ctx, c, origin, n, 1, 2); err != nil {
			t.Fatal(err)
		}
	}
	want := func(origin string, names ...wal.RelationName) {
		t.Helper()
		got, err := LeftOut(ctx, c, origin)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("of %s are left out %v, %v, want %v", origin, got, err, names)
		}
	}
	for range 3 {
		note("us", name(1))
		note("us", name(2))
		note("ap", name(1))
	}
	pgtest.Exec(t, c, "delete from pgwaltz.quarantine")
	want("us", name(1), name(2))
	want("ap", name(1))
	want("eu")
	if err := TakenIn(ctx, c, "us", []wal.RelationName{name(1), name(7)}); err != nil {
		t.Fatal(err)
	}
	want("us", name(2))
	want("ap", name(1))
	for n := range maxLeftOut + 5 {
		note("us", name(n))
	}
	note("us", name(2)) // it has its place
	got, err := LeftOut(ctx, c, "us")
	if err != nil || len(got) > maxLeftOut+1 || !slices.Contains(got, Unnamed) || !slices.Contains(got, name(2)) {
		t.Errorf("%d names are kept, %v", len(got), err)
	}
	// Tables that are not named are known by what was selected when they were left out.
	for _, selection := range []string{"one", "one", "other"} {
		s.Selection = selection
		note("ap", Unnamed)
	}
	want("ap", UnnamedUnder("one"), UnnamedUnder("other"), name(1))
	for _, n := range []wal.RelationName{UnnamedUnder("one"), Unnamed} {
		if !IsUnnamed(n) {
			t.Errorf("%v is a table's name", n)
		}
	}
}
