package conflict

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// plainTable has a key that is not deferrable.
func plainTable(oid uint32, mod int32) *wal.Relation {
	return &wal.Relation{OID: oid, Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0},
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true, TypeMod: -1}, {Name: "v", OID: 1043, Key: true, TypeMod: mod}}}
}

func plainRow(id int, v string) wal.Tuple {
	return wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, id)}, {Kind: wal.Text, Bytes: []byte(v)}}
}

func tangleText(changes []wal.Change) (s string) {
	for _, c := range changes {
		s += string(c.Op)
		for _, v := range append(append(wal.Tuple{}, c.Old...), c.New...) {
			s += " " + string(v.Bytes)
		}
		s += "; "
	}
	return s
}

// Definitions that change within a transaction make no table one of which two rows stood under a key: its changes go out as they came.
func TestTangleOfDefinitionsThatChange(t *testing.T) {
	t.Parallel()
	old, short, again, repeated := plainTable(1, 14), plainTable(1, 7), plainTable(2, 14), plainTable(1, 14)
	for name, changes := range map[string][]wal.Change{
		"a shorter type": {
			{Op: wal.Insert, Relation: old, New: plainRow(1, "abcdef")},
			{Op: wal.Insert, Relation: old, New: plainRow(2, "abcdef")},
			{Op: wal.Update, Relation: short, Old: plainRow(2, "abc"), OldFull: true, New: plainRow(2, "new")},
			{Op: wal.Delete, Relation: short, Old: plainRow(1, "abc"), OldFull: true},
		},
		"converted to the same type": {
			{Op: wal.Insert, Relation: old, New: plainRow(1, "abc")},
			{Op: wal.Insert, Relation: old, New: plainRow(2, "abc")},
			{Op: wal.Insert, Relation: old, New: plainRow(3, "abc")},
			{Op: wal.Update, Relation: repeated, Old: plainRow(2, "ABC"), OldFull: true, New: plainRow(2, "new")},
			{Op: wal.Update, Relation: repeated, Old: plainRow(2, "new"), OldFull: true, New: plainRow(2, "newer")},
			{Op: wal.Delete, Relation: repeated, Old: plainRow(1, "ABC"), OldFull: true},
			{Op: wal.Insert, Relation: repeated, New: plainRow(1, "again")},
			{Op: wal.Delete, Relation: repeated, Old: plainRow(3, "ABC"), OldFull: true},
		},
		"dropped and made again": {
			{Op: wal.Insert, Relation: old, New: plainRow(1, "a")},
			{Op: wal.Insert, Relation: again, New: plainRow(1, "b")},
			{Op: wal.Delete, Relation: again, Old: plainRow(1, "b"), OldFull: true},
		},
		"truncated": {
			{Op: wal.Insert, Relation: old, New: plainRow(1, "a")},
			{Op: wal.Insert, Relation: old, New: plainRow(2, "a")},
			{Op: wal.Delete, Relation: old, Old: plainRow(2, "a"), OldFull: true},
			{Op: wal.Truncate, Relation: old},
			{Op: wal.Insert, Relation: old, New: plainRow(1, "b")},
		},
	} {
		want := tangleText(changes)
		for cut := 1; cut <= len(changes); cut++ {
			var tangle Tangle
			got := ""
			for rest := changes; len(rest) > 0; {
				part := rest[:min(cut, len(rest))]
				rest = rest[len(part):]
				out, err := tangle.Take(append([]wal.Change(nil), part...), len(rest) > 0)
				if err != nil {
					t.Fatalf("%s, parts of %d: %v", name, cut, err)
				}
				got += tangleText(out)
			}
			if got != want || tangle.crowded != nil {
				t.Errorf("%s, parts of %d: %s instead of %s, crowded %v", name, cut, got, want, tangle.crowded)
			}
		}
	}
}

// Three rows stand under one deferrable key across the bound of what is held: the transaction is refused, and no row is lost.
func TestTangleOfThreeRowsAcrossTheBound(t *testing.T) {
	t.Parallel()
	rel := plainTable(1, -1)
	rel.Deferrable = true
	tangle := Tangle{limit: 1}
	take := func(more bool, in wal.Change) error {
		_, err := tangle.Take([]wal.Change{in}, more)
		return err
	}
	gone := func(v string) wal.Change {
		return wal.Change{Op: wal.Delete, Relation: rel, Old: plainRow(1, v), OldFull: true}
	}
	err := take(true, wal.Change{Op: wal.Insert, Relation: rel, New: plainRow(1, "let go")})
	tangle.limit = 1 << 20
	err = errors.Join(err, take(true, wal.Change{Op: wal.Insert, Relation: rel, New: plainRow(1, "held")}), take(true, gone("let go")))
	if err != nil {
		t.Fatal(err)
	}
	var refused *TangledError
	if err := take(false, gone("from before")); !errors.As(err, &refused) {
		t.Errorf("the row from before leaves with the one that is to stay: %v", err)
	}
}
