package conflict

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestUntangleRandom plays transactions that hold any number of rows under one key for a while, and asks
// for the rows that are there in the end.
func TestUntangleRandom(t *testing.T) {
	t.Parallel()
	whole := wal.Relation{Schema: "public", Name: "d", Identity: wal.IdentityFull, PrimaryKey: []int{0},
		Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	tuple := func(r [2]int) wal.Tuple {
		return wal.Tuple{{Kind: wal.Text, Bytes: fmt.Append(nil, r[0])}, {Kind: wal.Text, Bytes: fmt.Append(nil, r[1])}}
	}
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rel, contents := whole, 8
		switch rel.Deferrable = seed%4 > 0; {
		case !rel.Deferrable:
			contents = 1 << 40 // rows that are equal are told from each other by nothing
		case seed%3 == 0:
			contents = 2
		}
		var rows [][2]int
		start := map[string]string{}
		for id := range 1 + rng.IntN(4) {
			r := [2]int{id, rng.IntN(contents)}
			rows = append(rows, r)
			start[fmt.Sprint(r[0])] = fmt.Sprint(r[1])
		}
		var in []wal.Change
		add := func(ch wal.Change) {
			if del, ins, ok := SplitKeyChange(ch); ok {
				in = append(in, del, ins)
				return
			}
			in = append(in, ch)
		}
		unique := func() bool {
			seen := map[int]bool{}
			for _, r := range rows {
				if seen[r[0]] {
					return false
				}
				seen[r[0]] = true
			}
			return true
		}
		story := ""
		moves := 3 + rng.IntN(8)
		if !rel.Deferrable { // one statement has given each row another key
			moves = 0
			to := rng.Perm(5)
			for _, i := range rng.Perm(len(rows)) {
				old := rows[i]
				rows[i][0] = to[old[0]]
				add(wal.Change{Op: wal.Update, Relation: &rel, Old: tuple(old), New: tuple(rows[i]), OldFull: true})
				story += fmt.Sprint(" ", old, ">", rows[i])
			}
		}
		for n := 0; n < moves || !unique(); n++ {
			k := rng.IntN(6)
			switch {
			case k == 0 && len(rows) < 6 && n < 12 || len(rows) == 0:
				r := [2]int{rng.IntN(5), rng.IntN(contents)}
				rows = append(rows, r)
				add(wal.Change{Op: wal.Insert, Relation: &rel, New: tuple(r)})
				story += fmt.Sprint(" +", r)
			case k == 1:
				i := rng.IntN(len(rows))
				add(wal.Change{Op: wal.Delete, Relation: &rel, Old: tuple(rows[i]), OldFull: true})
				story += fmt.Sprint(" -", rows[i])
				rows = append(rows[:i], rows[i+1:]...)
			default:
				i := rng.IntN(len(rows))
				old, now := rows[i], rows[i]
				if k > 2 {
					now[0] = rng.IntN(5)
				} else {
					now[1] = rng.IntN(contents)
				}
				rows[i] = now
				add(wal.Change{Op: wal.Update, Relation: &rel, Old: tuple(old), New: tuple(now), OldFull: true})
				story += fmt.Sprint(" ", old, ">", now)
			}
		}
		want := map[string]string{}
		for _, r := range rows {
			want[fmt.Sprint(r[0])] = fmt.Sprint(r[1])
		}
		play := func(out []wal.Change) map[string]string {
			got := maps.Clone(start)
			for i := range out {
				if out[i].Op == wal.Delete {
					delete(got, string(out[i].Old[0].Bytes))
				} else {
					got[string(out[i].New[0].Bytes)] = string(out[i].New[1].Bytes)
				}
			}
			return got
		}
		tangle := Tangle{}
		out, err := tangle.Take(in, false)
		if got := play(out); err != nil || !maps.Equal(got, want) {
			t.Fatalf("seed %d: %v,%s: got %v, want %v, %v", seed, start, story, got, want, err)
		}
		tangle, out = Tangle{}, nil
		for rel.Deferrable && len(in) > 0 {
			n := 1 + rng.IntN(len(in))
			part, err := tangle.Take(in[:n], n < len(in))
			if err != nil {
				t.Fatal(err)
			}
			out, in = append(out, part...), in[n:]
		}
		if got := play(out); rel.Deferrable && !maps.Equal(got, want) {
			t.Fatalf("seed %d in parts: %v,%s: got %v, want %v", seed, start, story, got, want)
		}
	}
}
