package cutover

import (
	"math"
	"testing"
)

// What the destination's sequence gives out next, by how both stand.
func TestDecide(t *testing.T) {
	t.Parallel()
	up := Kind{Step: 1, Min: 1, Max: math.MaxInt64}
	small := Kind{Step: 1, Min: 1, Max: 100}
	down := Kind{Step: -2, Min: -1000, Max: 1000}
	odd := Kind{Step: 2, Min: 1, Max: math.MaxInt64}
	round := Kind{Step: 1, Min: 1, Max: 20, Cycle: true}
	used, fresh := func(n int64) Position { return Position{n, true} }, func(n int64) Position { return Position{n, false} }
	for _, c := range []struct {
		name        string
		here, there Kind
		src, dst    Position
		margin      int64
		want        Position
		problem     bool
	}{
		{"ahead", up, up, used(70), used(7), 0, used(70), false},
		{"margin", up, up, used(70), used(7), 1000, used(1070), false},
		{"never back", up, up, used(70), used(71), 0, used(71), false},
		{"equal", up, up, used(70), used(70), 0, used(70), false},
		{"margin is ahead already", up, up, used(70), used(500), 100, used(500), false},
		{"never used", up, up, fresh(1), fresh(1), 1000, fresh(1), false},
		{"never used here, used there", up, up, fresh(1), used(5), 0, used(5), false},
		{"never used, begins later", up, up, fresh(500), fresh(1), 0, fresh(500), false},
		{"first number", up, up, used(1), fresh(1), 0, used(1), false},
		{"used up", small, small, used(100), used(5), 0, used(100), false},
		{"margin is beyond the end", small, small, used(95), used(5), 1000, used(95), false},
		{"at the end of numbers", up, up, used(math.MaxInt64), used(5), math.MaxInt64, used(math.MaxInt64), false},
		{"smaller type there", up, small, used(500), used(5), 0, used(5), true},
		{"down", down, down, used(90), fresh(100), 0, used(90), false},
		{"down with a margin", down, down, used(90), fresh(100), 10, used(70), false},
		{"down never back", down, down, used(90), used(80), 0, used(80), false},
		{"other direction", up, down, used(90), used(80), 0, used(80), true},
		{"own rhythm: even numbers there", odd, odd, used(71), used(8), 0, used(72), false},
		{"own rhythm: ahead in it", odd, odd, used(71), used(74), 0, used(74), false},
		{"one here, twos there", up, odd, used(70), used(7), 0, used(71 - 2 + 0), false},
		{"cycles", round, round, used(3), used(18), 100, used(3), false},
		{"cycles, never used", round, round, fresh(1), used(18), 0, fresh(1), false},
		{"first of a small one", small, Kind{Step: 1, Min: 200, Max: 300}, used(250), fresh(200), 0, used(250), false},
	} {
		s := Sequence{Name: "s", Source: c.src, Here: c.here, There: c.there, Destination: c.dst}
		s.decide(c.margin)
		if (s.Problem != "") != c.problem || !c.problem && s.Want != c.want {
			t.Errorf("%s: %+v (%q), want %+v", c.name, s.Want, s.Problem, c.want)
		}
		if c.problem || c.here.Cycle {
			continue
		}
		// No number of the source is given out again, and none of the destination's own.
		next, gave := nextOf(s.Want, c.there.Step), nextOf(c.src, c.here.Step)
		if before(next, gave, c.there.Step) || before(next, nextOf(c.dst, c.there.Step), c.there.Step) {
			t.Errorf("%s: the next number is %s, the source's is %s", c.name, next, gave)
		}
	}
	s := Sequence{Name: "s", Missing: true}
	if s.decide(5); s.Change() || len(s.findings()) != 1 {
		t.Errorf("%+v", s)
	}
}
