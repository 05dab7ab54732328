package publication

import (
	"testing"

	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that left by its name is noted by its number, unless it is published under another name that is selected; what has its name now is noted as well.
func TestWhatIsAway(t *testing.T) {
	t.Parallel()
	name := func(s string) wal.RelationName { return wal.RelationName{Schema: "public", Name: s} }
	w := New(Config{Selected: func(n wal.RelationName) bool { return n.Name != "shelved" }})
	gone := map[wal.RelationName]uint32{name("taken_out"): 1, name("renamed"): 2, name("hidden"): 3, name("back"): 4}
	now := map[wal.RelationName]uint32{name("new_name"): 2, name("shelved"): 3, name("back"): 4}
	got := map[tablecopy.Left]bool{}
	for _, l := range w.away(gone, now) {
		got[l] = true
	}
	for _, want := range []tablecopy.Left{{Name: name("taken_out"), OID: 1}, {Name: name("renamed")}, {Name: name("hidden"), OID: 3}, {Name: name("back")}} {
		if !got[want] {
			t.Errorf("%v is not among %v", want, got)
		}
	}
	if len(got) != len(gone) {
		t.Errorf("noted are %v", got)
	}
}
