package copy

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestCursor(t *testing.T) {
	t.Parallel()
	for _, key := range [][]string{{"1"}, {""}, {"a:b", "3:x"}, {"ü", "", "0:"}} {
		text := formatCursor(key)
		if got := parseCursor(&text, len(key)); !slices.Equal(got, key) {
			t.Errorf("%q came back as %q", key, got)
		}
		if got := parseCursor(&text, len(key)+1); got != nil {
			t.Errorf("%q counts as a key of %d columns", text, len(key)+1)
		}
	}
	for _, bad := range []string{"x", "5:ab", "-1:a", "1"} {
		if got := parseCursor(&bad, 1); got != nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func TestRequestSQLQuotes(t *testing.T) {
	t.Parallel()
	got := RequestSQL([]wal.RelationName{{Schema: "public", Name: "o'neil"}, {Schema: "x", Name: "y"}})
	if !strings.Contains(got, `('public', 'o''neil', 'pending', pg_catalog.now()), ('x', 'y', 'pending', pg_catalog.now())`) {
		t.Errorf("got %s", got)
	}
}

func TestWatchKeepsOutWhatWentBefore(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}, PrimaryKey: []int{0}}
	row := func(id string) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: []byte(id)}, {Kind: wal.Text, Bytes: []byte("v")}}
	}
	change := func(id string) wal.Change { return wal.Change{Op: wal.Update, Relation: rel, New: row(id)} }
	var w Watch
	one, two := change("1"), change("2")
	w.Changed(&wal.Transaction{CommitLSN: 90, Changes: []wal.Change{one}})
	w.start(rel.Ref())
	if !w.unchanged(&one, 100) {
		t.Error("a change before the watch began counts")
	}
	w.Changed(&wal.Transaction{CommitLSN: 100, Changes: []wal.Change{one}})
	if w.unchanged(&one, 100) || !w.unchanged(&two, 100) || !w.unchanged(&one, 101) {
		t.Error("the change at 100 has to keep out a row read at 100, and nothing else")
	}
	part := change("2")
	part.New = wal.Tuple{part.New[0], {Kind: wal.Unchanged}}
	w.Changed(&wal.Transaction{CommitLSN: 110, Changes: []wal.Change{part}})
	if !w.unchanged(&two, 100) {
		t.Error("a change without its whole row keeps the copied row out")
	}
	w.forget(101)
	if len(w.keys) != 0 {
		t.Errorf("%d keys are left", len(w.keys))
	}
}

func TestWatchIsBounded(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "id", OID: 23, Key: true}}, PrimaryKey: []int{0}}
	change := func(id int) wal.Change {
		return wal.Change{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Text, Bytes: []byte(strconv.Itoa(id))}}}
	}
	var w Watch
	w.start(rel.Ref())
	for id := range maxWatched + 1000 {
		w.Changed(&wal.Transaction{CommitLSN: 100, Changes: []wal.Change{change(id)}})
	}
	first := change(0)
	w.Changed(&wal.Transaction{CommitLSN: 200, Changes: []wal.Change{first}})
	if len(w.keys) != maxWatched || w.unchanged(&first, 150) {
		t.Errorf("%d rows are remembered, the first at %d", len(w.keys), w.keys[string(first.AppendKey(nil))])
	}
}
