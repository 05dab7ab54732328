package publication

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestRenamedTables: a table that is known by its OID has another name; a new one, and one that
// stayed, have not.
func TestRenamedTables(t *testing.T) {
	t.Parallel()
	name := func(s string) wal.RelationName { return wal.RelationName{Schema: "public", Name: s} }
	known := map[wal.RelationName]uint32{name("t"): 1, name("stays"): 2, name("gone"): 3}
	now := map[wal.RelationName]uint32{name("t2"): 1, name("stays"): 2, name("new"): 4}
	if got := renamedTables(known, now); len(got) != 1 || got[0] != name("t2") {
		t.Errorf("got %v, want t2", got)
	}
	now[name("stays")], now[name("t")] = 1, 2
	delete(now, name("t2"))
	if got := renamedTables(known, now); len(got) != 2 {
		t.Errorf("after a swap: %v, want both", got)
	}
	if got := renamedTables(nil, now); len(got) != 0 {
		t.Errorf("at the first look: %v, want none", got)
	}
}
