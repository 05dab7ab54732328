package conflict

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestTangle: whatever part of a transaction a row moves in, no key has two rows.
func TestTangle(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	row := func(id int, v string) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, id)}, {Kind: wal.Text, Bytes: []byte(v)}}
	}
	const n = 60
	move := func(from, to int, v, now string) []wal.Change {
		del, ins, ok := SplitKeyChange(wal.Change{Op: wal.Update, Relation: rel, Old: row(from, v), OldFull: true, New: row(to, now)})
		if !ok {
			return []wal.Change{{Op: wal.Update, Relation: rel, Old: row(from, v), OldFull: true, New: row(to, now)}}
		}
		return []wal.Change{del, ins}
	}
	name := func(i int) string { return fmt.Sprintf("r%d", i) }
	for what, to := range map[string]func(int) int{
		"each row moves on by one": func(i int) int { return i%n + 1 },
		"the order is reversed":    func(i int) int { return n + 1 - i },
		"pairs are swapped":        func(i int) int { return (i - 1) ^ 1 + 1 },
		"to keys that are free":    func(i int) int { return i + n },
	} {
		for _, size := range []int{1, 2, 3, 7, 1000} {
			var all []wal.Change
			for i := 1; i <= n; i++ {
				all = append(all, move(i, to(i), name(i), name(i))...)
			}
			for i := 1; i <= n; i += 3 { // and some are changed, or removed, where they are now
				all = append(all, move(to(i), to(i), name(i), name(i)+"x")...)
			}
			all = append(all, wal.Change{Op: wal.Delete, Relation: rel, Old: row(to(2), name(2)), OldFull: true})
			rows := map[string]string{}
			for i := 1; i <= n; i++ {
				rows[fmt.Sprint(i)] = name(i)
			}
			var tangle Tangle
			for len(all) > 0 {
				part := all[:min(size, len(all))]
				all = all[len(part):]
				out, err := tangle.Take(part, len(all) > 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, ch := range out {
					switch ch.Op {
					case wal.Delete:
						key := string(ch.Old[0].Bytes)
						if rows[key] != string(ch.Old[1].Bytes) {
							t.Fatalf("%s, parts of %d: %s is removed, %s stands under %s", what, size, ch.Old[1].Bytes, rows[key], key)
						}
						delete(rows, key)
					case wal.Insert:
						key := string(ch.New[0].Bytes)
						if was, ok := rows[key]; ok {
							t.Fatalf("%s, parts of %d: %s is put over %s under %s", what, size, ch.New[1].Bytes, was, key)
						}
						rows[key] = string(ch.New[1].Bytes)
					default:
						rows[string(ch.New[0].Bytes)] = string(ch.New[1].Bytes)
					}
				}
			}
			if tangle.Holds() || len(rows) != n-1 {
				t.Errorf("%s, parts of %d: %d rows, want %d", what, size, len(rows), n-1)
			}
			for i := 1; i <= n; i++ {
				want := name(i)
				if i%3 == 1 {
					want += "x"
				}
				if got := rows[fmt.Sprint(to(i))]; i != 2 && got != want {
					t.Errorf("%s, parts of %d: %s stands under %d, want %s", what, size, got, to(i), want)
				}
			}
		}
	}
}

// TestTangleOfADroppedKey: a key that is not deferrable was dropped, and made again, in a transaction in parts. Where it was not,
// everything goes out as it came.
func TestTangleOfADroppedKey(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0},
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	row := func(id, v int) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, id)}, {Kind: wal.Text, Bytes: fmt.Append(nil, v)}}
	}
	const n = 300
	for _, by := range []int{1, n} {
		for _, size := range []int{4, 7, 50, 10000} {
			var all []wal.Change
			for i := range n {
				del, ins, _ := SplitKeyChange(wal.Change{Op: wal.Update, Relation: rel, Old: row(i, i), OldFull: true, New: row(i+by, i)})
				all = append(all, del, ins)
			}
			all = append(all, wal.Change{Op: wal.Delete, Relation: rel, Old: row(by, 0), OldFull: true})
			came := len(all)
			rows := map[string]string{}
			for i := range n {
				rows[fmt.Sprint(i)] = fmt.Sprint(i)
			}
			var tangle Tangle
			went := 0
			for len(all) > 0 {
				part := all[:min(size, len(all))]
				all = all[len(part):]
				out, err := tangle.Take(part, len(all) > 0)
				if err != nil {
					t.Fatal(err)
				}
				went += len(out)
				for _, ch := range out {
					if ch.Op == wal.Delete {
						delete(rows, string(ch.Old[0].Bytes))
					} else {
						rows[string(ch.New[0].Bytes)] = string(ch.New[1].Bytes)
					}
				}
			}
			if len(rows) != n-1 || tangle.Holds() || by == n && went != came {
				t.Errorf("by %d, parts of %d: %d rows, %d of %d changes", by, size, len(rows), went, came)
			}
			for i := 1; i < n; i++ {
				if rows[fmt.Sprint(i+by)] != fmt.Sprint(i) {
					t.Errorf("by %d, parts of %d: %q stands under %d", by, size, rows[fmt.Sprint(i+by)], i+by)
				}
			}
		}
	}
}

// TestTangleBeyondItsBound: a large load goes out, and may be changed in the same transaction; rows that come to stand
// under keys which others leave later do not.
func TestTangleBeyondItsBound(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	row := func(id int, v string) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, id)}, {Kind: wal.Text, Bytes: []byte(v)}}
	}
	const n = 200
	load := func(tangle *Tangle) (out int) {
		for i := range n {
			got, err := tangle.Take([]wal.Change{{Op: wal.Insert, Relation: rel, New: row(i, "new")}}, true)
			if err != nil {
				t.Fatal(err)
			}
			out += len(got)
		}
		return out
	}
	changed := []wal.Change{
		{Op: wal.Update, Relation: rel, Old: row(7, "new"), OldFull: true, New: row(7, "changed")},
		{Op: wal.Delete, Relation: rel, Old: row(7, "changed"), OldFull: true},
		{Op: wal.Delete, Relation: rel, Old: row(8, "new"), OldFull: true},
		{Op: wal.Update, Relation: rel, Old: row(n+1, "another"), OldFull: true, New: row(n+1, "changed")},
		{Op: wal.Delete, Relation: rel, Old: row(n+2, "another"), OldFull: true},
	}
	tangle := Tangle{limit: 2 << 10}
	before := load(&tangle)
	if before == 0 || before == n {
		t.Fatalf("%d of %d rows went out", before, n)
	}
	out, err := tangle.Take(changed, false)
	if err != nil || len(out) != len(changed)+n-before {
		t.Errorf("a load, and changes of its rows: %d changes, %v", len(out), err)
	}
	for _, ch := range []wal.Change{
		{Op: wal.Delete, Relation: rel, Old: row(7, "the row before"), OldFull: true},
		{Op: wal.Update, Relation: rel, Old: row(8, "the row before"), OldFull: true, New: row(8, "changed")},
	} {
		tangle = Tangle{limit: 2 << 10}
		load(&tangle)
		_, err := tangle.Take([]wal.Change{ch}, false)
		if full := (*TangledError)(nil); !errors.As(err, &full) || full.Relation.Name != "d" {
			t.Errorf("%s of a row before: %v", ch.Op, err)
		}
	}
}

// Two rows that went out under one key, of which either may leave, stop it; what was truncated since does not.
func TestTangleBeyondItsBoundCrowded(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	row := func(v string) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Text, Bytes: []byte(v)}}
	}
	a := wal.Change{Op: wal.Insert, Relation: rel, New: row("a")}
	b := wal.Change{Op: wal.Insert, Relation: rel, New: row("b")}
	for _, v := range []string{"a", "b"} {
		tangle := Tangle{limit: 1}
		out, err := tangle.Take([]wal.Change{a, b}, true)
		if err != nil || len(out) != 2 {
			t.Fatalf("two rows under one key: %d changes, %v", len(out), err)
		}
		leaves := wal.Change{Op: wal.Delete, Relation: rel, Old: row(v), OldFull: true}
		if _, err := tangle.Take([]wal.Change{leaves}, false); !errors.As(err, new(*TangledError)) {
			t.Errorf("%s leaves: %v", v, err)
		}
	}
	tangle := Tangle{limit: 1}
	left := wal.Change{Op: wal.Delete, Relation: rel, Old: row("a"), OldFull: true}
	if _, err := tangle.Take([]wal.Change{a, left, a}, true); err != nil {
		t.Fatal(err)
	}
	if out, err := tangle.Take([]wal.Change{left, a, left, a}, true); err != nil || len(out) != 2 {
		t.Fatalf("a row leaves and comes again: %d changes, %v", len(out), err)
	}
	before := wal.Change{Op: wal.Update, Relation: rel, Old: row("c"), OldFull: true, New: row("d")}
	if _, err := tangle.Take([]wal.Change{left, before}, true); !errors.As(err, new(*TangledError)) {
		t.Errorf("a row that came beside another one has left, and the other one is changed: %v", err)
	}
	tangle = Tangle{limit: 1}
	if _, err := tangle.Take([]wal.Change{a}, true); err != nil {
		t.Fatal(err)
	}
	next := []wal.Change{b, {Op: wal.Truncate, Relation: rel}, b}
	out, err := tangle.Take(next, true)
	if err != nil || len(out) != 3 || out[1].Op != wal.Truncate {
		t.Fatalf("truncated: %d changes, %v", len(out), err)
	}
	leaves := wal.Change{Op: wal.Delete, Relation: rel, Old: row("b"), OldFull: true}
	if out, err := tangle.Take([]wal.Change{leaves}, false); err != nil || len(out) != 1 {
		t.Errorf("the row behind a truncate leaves: %d changes, %v", len(out), err)
	}
}

// Of more rows than are remembered with their contents, the keys are.
func TestLetGoKnowsKeys(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	l := letGo{rows: map[[16]byte][16]byte{}}
	unknown := wal.Change{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Unchanged}}}
	l.add("1", &unknown) // without its contents
	taken := 0
	for i := range 10000 {
		del := wal.Change{Op: wal.Delete, Relation: rel, Old: unknown.New, OldFull: true}
		if !l.follows(fmt.Sprint(i), &del) {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("%d keys count as let go, want 1", taken)
	}
}
