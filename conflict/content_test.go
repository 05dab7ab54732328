package conflict

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func contentRel(names ...string) *wal.Relation {
	r := &wal.Relation{Schema: "s", Name: "t"}
	for _, n := range names {
		r.Columns = append(r.Columns, wal.Column{Name: n, OID: 25})
	}
	return r
}

func mustContent(t *testing.T, rel *wal.Relation, v ...wal.Value) []byte {
	t.Helper()
	c, ok := Content(rel, v)
	if !ok {
		t.Fatal("no content")
	}
	return c
}

func TestContentOrder(t *testing.T) {
	t.Parallel()
	rel := contentRel("v", "a")
	null := wal.Value{Kind: wal.Null}
	// From low to high; the columns count in the order of their names: a, then v.
	rows := []wal.Tuple{
		{textOf("z"), null},
		{null, textOf("")},
		{textOf(""), textOf("")},
		{textOf("\x00"), textOf("")},
		{textOf("\x00a"), textOf("")},
		{textOf("\x01"), textOf("")},
		{textOf("A"), textOf("")},
		{textOf("A\x00"), textOf("")},
		{textOf("AB"), textOf("")},
		{textOf("B"), textOf("")},
		{textOf("A"), textOf("1")},
	}
	for i := range rows {
		for j := range rows {
			a, b := mustContent(t, rel, rows[i]...), mustContent(t, rel, rows[j]...)
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := bytes.Compare(a, b); got != want {
				t.Errorf("row %d against row %d is %d, want %d", i, j, got, want)
			}
		}
	}
}

// TestContentIsCanonical is P7 for what the room itself decides: the order of the columns
// and the form in which a value travels do not matter, and nothing runs into anything else.
func TestContentIsCanonical(t *testing.T) {
	t.Parallel()
	a := mustContent(t, contentRel("x", "y"), textOf("1"), textOf("2"))
	if b := mustContent(t, contentRel("y", "x"), textOf("2"), textOf("1")); !bytes.Equal(a, b) {
		t.Error("the order of the columns matters")
	}
	rel := &wal.Relation{Columns: []wal.Column{{Name: "n", OID: 23}}}
	if b := mustContent(t, rel, wal.Value{Kind: wal.Binary, Bytes: []byte{0, 0, 1, 2}}); !bytes.Equal(b, mustContent(t, rel, textOf("258"))) {
		t.Error("binary and text differ")
	}
	if _, ok := Content(&wal.Relation{Columns: []wal.Column{{Name: "n", OID: 1700}}}, wal.Tuple{{Kind: wal.Binary, Bytes: []byte{0}}}); ok {
		t.Error("a binary numeric has content")
	}
	if _, ok := Content(rel, wal.Tuple{{Kind: wal.Unchanged}}); ok {
		t.Error("an unchanged value has content")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]string{}
	two := contentRel("p", "q")
	for range 20000 {
		word := func() string {
			b := make([]byte, rng.IntN(4))
			for i := range b {
				b[i] = []byte{0, 1, 2, 0xff}[rng.IntN(4)]
			}
			return string(b)
		}
		x, y := word(), word()
		c := string(mustContent(t, two, textOf(x), textOf(y)))
		id := string(rune(len(x))) + x + y
		if old, ok := seen[c]; ok && old != id {
			t.Fatal("two images have one content")
		}
		seen[c] = id
	}
}

func TestEventID(t *testing.T) {
	t.Parallel()
	rel := wal.RelationName{Schema: "s", Name: "t"}
	a := Side{Known: true, Alive: true, Stamp: wal.Stamp{Version: 2}, Content: []byte("a")}
	b := Side{Known: true, Alive: true, Stamp: wal.Stamp{Version: 3}, Content: []byte("b")}
	id := EventID(rel, `["1"]`, a, b)
	if id != EventID(rel, `["1"]`, b, a) {
		t.Error("not symmetric: the two regions do not share the id")
	}
	if id[6]>>4 != 8 || id[8]>>6 != 2 {
		t.Error("not a UUID of version 8")
	}
	dead := a
	dead.Alive = false
	for name, other := range map[string][16]byte{
		"key":      EventID(rel, `["2"]`, a, b),
		"relation": EventID(wal.RelationName{Schema: "st"}, `["1"]`, a, b),
		"alive":    EventID(rel, `["1"]`, dead, b),
		"unknown":  EventID(rel, `["1"]`, Side{}, b),
		"content":  EventID(rel, `["1"]`, Side{Known: true, Alive: true, Stamp: a.Stamp, Content: []byte("x")}, b),
	} {
		if other == id {
			t.Errorf("another %s gives the same id", name)
		}
	}
}
