package conflict

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// someSides are entries from few values, the edges among them, so that ties are common.
func someSides(rng *rand.Rand, n int) []Side {
	versions := []int64{wal.NullVersion, -1, 0, 1, 7, wal.MaxVersion}
	times := []wal.Micros{wal.MinMicros, -5, 0, 9, wal.MaxMicros}
	out := make([]Side, n)
	for i := range out {
		out[i] = Side{Known: true, Alive: rng.IntN(3) > 0, Stamp: wal.Stamp{
			Generation: uint32(rng.IntN(3)), Version: versions[rng.IntN(len(versions))], UpdatedAt: times[rng.IntN(len(times))],
		}}
		if out[i].Alive {
			out[i].Content = []byte([]string{"a", "b", "ä"}[rng.IntN(3)])
		}
	}
	return out
}

// TestOrder is P1: a strict total order, for both policies.
func TestOrder(t *testing.T) {
	t.Parallel()
	for _, p := range []Policy{{}, {Order: TimeFirst}} {
		sides := someSides(rand.New(rand.NewPCG(3, 4)), 160)
		for _, a := range sides {
			for _, b := range sides {
				ab := p.CompareSides(a, b)
				if ab != -p.CompareSides(b, a) {
					t.Fatalf("%v: not antisymmetric: %v %v", p.Order, a, b)
				}
				same := a.Stamp == b.Stamp && a.Alive == b.Alive && bytes.Equal(a.Content, b.Content)
				if (ab == 0) != same {
					t.Fatalf("%v: %v and %v compare as %d", p.Order, a, b, ab)
				}
				for _, c := range sides {
					if ab > 0 && p.CompareSides(b, c) > 0 && p.CompareSides(a, c) <= 0 {
						t.Fatalf("%v: not transitive: %v %v %v", p.Order, a, b, c)
					}
				}
			}
		}
	}
	if got := (Policy{}).Compare(wal.Stamp{Version: 4, UpdatedAt: 1}, wal.Stamp{Version: 2, UpdatedAt: 9}); got != 1 {
		t.Error("the version does not come first")
	}
	if got := (Policy{Order: TimeFirst}).Compare(wal.Stamp{Version: 4, UpdatedAt: 1}, wal.Stamp{Version: 2, UpdatedAt: 9}); got != -1 {
		t.Error("the time does not come first")
	}
}

// merge folds an entry into another as an applier does.
func merge(p Policy, kind EventKind, l, s Side) Side {
	e := Event{Kind: kind, Op: wal.Update, Stamp: s.Stamp, Content: s.Content, Complete: true}
	if !s.Alive {
		e.Op = wal.Delete
	}
	if d := Resolve(p, e, l); d.Verdict == Apply {
		return e.Side()
	}
	return l
}

// TestJoin is P2 to P5: the fold of events does not depend on their order or number, and is
// the highest of them.
func TestJoin(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 40000 {
		p := Policy{Order: Order(round % 2)}
		kind := []EventKind{Live, Repair, Self}[rng.IntN(3)]
		sides := someSides(rng, 1+rng.IntN(5))
		want := slices.MaxFunc(sides, p.CompareSides)
		more := append(slices.Clone(sides), sides[rng.IntN(len(sides))], sides[0])
		rng.Shuffle(len(more), func(i, j int) { more[i], more[j] = more[j], more[i] })
		var got Side
		for _, s := range more {
			got = merge(p, kind, got, s)
		}
		if p.CompareSides(got, want) != 0 {
			t.Fatalf("%v, %v: the fold of %v is %v", p.Order, kind, more, got)
		}
		a, b := merge(p, kind, sides[0], want), merge(p, kind, want, sides[0])
		if p.CompareSides(a, b) != 0 {
			t.Fatalf("not commutative: %v %v", sides[0], want)
		}
	}
}

// TestPushbackTells: whenever a live event loses against something that differs, its origin
// is told, and what it is told wins there or ties.
func TestPushbackTells(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 40000 {
		s := someSides(rng, 2)
		if !s[0].Alive && !s[1].Alive {
			continue // the higher delete travels by itself
		}
		e := Event{Op: wal.Update, Stamp: s[0].Stamp, Content: s[0].Content, Complete: true}
		if !s[0].Alive {
			e.Op = wal.Delete
		}
		d := Resolve(Policy{}, e, s[1])
		if (d.Verdict == Keep) != d.Pushback {
			t.Fatalf("%v against %v: %v", s[0], s[1], d)
		}
		if d.Pushback && cmp.Compare(Policy{}.CompareSides(merge(Policy{}, Repair, s[0], s[1]), s[1]), 0) != 0 {
			t.Fatalf("the repair of %v by %v does not win", s[0], s[1])
		}
	}
}

func TestSkewed(t *testing.T) {
	t.Parallel()
	p := Policy{MaxSkew: 10}
	for at, want := range map[wal.Micros]bool{0: false, 110: false, 111: true, wal.MaxMicros: true, wal.MinMicros: false} {
		if got := p.Skewed(wal.Stamp{UpdatedAt: at}, 100); got != want {
			t.Errorf("a stamp of %d at 100 is skewed: %v", at, got)
		}
	}
}
