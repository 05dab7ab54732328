package publication

import (
	"maps"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What a publication left out is copied when it is published whole, and is named until then, whatever was seen of it
// in between.
func TestNarrowingCompare(t *testing.T) {
	t.Parallel()
	table := wal.RelationName{Schema: "public", Name: "t"}
	part := wal.RelationName{Schema: "public", Name: "p"}
	plain := names.Manner{At: "1.5 7"}
	with := func(at, filter string, leaves bool) names.Manner {
		return names.Manner{At: at, Filter: filter, Leaves: leaves}
	}
	for _, c := range []struct {
		what           string
		was            names.Manner // zero: not known
		is             names.Manner
		kinds          string
		split, unlog   bool
		stored, copied bool
		anew           bool
	}{
		{what: "the first look takes it as it is", is: with("1.5 7", "f", false), stored: true},
		{what: "nothing has changed", was: plain, is: plain},
		{what: "taken out and put back", was: plain, is: with("1.5 8", "", false), stored: true, copied: true},
		{what: "the publication was altered", was: plain, is: with("1.6 7", "", false), stored: true, copied: true},
		{what: "a new filter", was: plain, is: with("1.5 8", "f", false), anew: true},
		{what: "another filter than the one that is meant", was: with("1.5 7", "f", false), is: with("1.5 8", "g", false), anew: true},
		{what: "a filter that was meant, put back", was: with("1.5 7", "f", false), is: with("1.5 8", "f", false), stored: true, copied: true},
		{what: "a filter that was meant is gone", was: with("1.5 7", "f", false), is: with("1.5 8", "", false), stored: true, copied: true},
		{what: "a kind is not published", was: plain, is: with("1.6 7", "", false), kinds: "deletes"},
		{what: "partitions are named", was: plain, is: with("1.6 7", "", true), split: true},
		{what: "a partition is unlogged", was: plain, is: with("1.5 7 public.p", "", false), unlog: true, stored: true},
		{what: "a partition is unlogged, and there is a new filter", was: plain, is: with("1.5 8 public.p", "f", false), unlog: true, anew: true},
		{what: "a partition was unlogged", was: with("1.5 7 public.p", "", false), is: plain, stored: true, copied: true},
	} {
		n := narrowing{kinds: c.kinds, split: c.split, anew: map[wal.RelationName]string{}}
		if c.unlog {
			n.unlogged = map[wal.RelationName]wal.RelationName{part: table}
		}
		was := map[wal.RelationName]names.Manner{}
		if c.was.At != "" {
			was[table] = c.was
		}
		store, again := n.compare(was, map[wal.RelationName]names.Manner{table: c.is})
		if _, stored := store[table]; stored != c.stored || slices.Contains(again, table) != c.copied || (len(n.anew) > 0) != c.anew {
			t.Errorf("%s: stored %v, copied %v, new filters %v", c.what, slices.Collect(maps.Keys(store)), again, n.anew)
		}
	}
}
