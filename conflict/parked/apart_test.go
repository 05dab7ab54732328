package parked_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
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
