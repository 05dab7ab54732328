package conflict

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestUntangleLargeValues plays updates that leave large values alone while several rows stand under one deferrable key: the
// WAL does not say these values again, and by them alone rows may differ.
func TestUntangleLargeValues(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Deferrable: true,
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}, {Name: "big", OID: 25, Key: true}}}
	type row [3]int
	tuple := func(r row) (out wal.Tuple) {
		for _, n := range r {
			out = append(out, wal.Value{Kind: wal.Text, Bytes: fmt.Append(nil, n)})
		}
		return out
	}
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var rows []row
		for id := range 1 + rng.IntN(8) {
			rows = append(rows, row{id, rng.IntN(3), rng.IntN(3)})
		}
		start := map[string]wal.Tuple{}
		for _, r := range rows {
			start[fmt.Sprint(r[0])] = tuple(r)
		}
		unique := func() bool {
			seen := map[int]bool{}
			return !slices.ContainsFunc(rows, func(r row) bool {
				was := seen[r[0]]
				seen[r[0]] = true
				return was
			})
		}
		var in []wal.Change
		for n := 0; n < 12 || !unique(); n++ {
			r := &rows[rng.IntN(len(rows))]
			ch := wal.Change{Op: wal.Update, Relation: rel, Old: tuple(*r), OldFull: true}
			switch rng.IntN(4) {
			case 0:
				r[1] = rng.IntN(3)
			case 1:
				r[2] = rng.IntN(3)
			default:
				r[0] = rng.IntN(8)
			}
			if ch.New = tuple(*r); string(ch.New[2].Bytes) == string(ch.Old[2].Bytes) {
				ch.New[2] = wal.Value{Kind: wal.Unchanged}
			}
			if del, ins, ok := SplitKeyChange(ch); ok {
				in = append(in, del, ins)
			} else {
				in = append(in, ch)
			}
		}
		want := map[string]string{}
		for _, r := range rows {
			want[fmt.Sprint(r[0])] = show(tuple(r))
		}
		for _, parts := range []bool{false, true} {
			tangle, left, got := Tangle{}, in, maps.Clone(start)
			for len(left) > 0 {
				n := len(left)
				if parts {
					n = 1 + rng.IntN(n)
				}
				out, err := tangle.Take(left[:n], n < len(left))
				if err != nil {
					t.Fatal(err)
				}
				for _, ch := range out {
					if ch.Op == wal.Delete {
						delete(got, string(ch.Old[0].Bytes))
					} else {
						key := string(ch.New[0].Bytes)
						got[key] = ch.New.Filled(got[key])
					}
				}
				left = left[n:]
			}
			is := map[string]string{}
			for key, r := range got {
				is[key] = show(r)
			}
			if !maps.Equal(is, want) {
				t.Fatalf("seed %d, in parts %v: got %v, want %v", seed, parts, is, want)
			}
		}
	}
}

func show(r wal.Tuple) (out string) {
	for _, v := range r {
		out += " " + string(v.Bytes)
	}
	return out
}
