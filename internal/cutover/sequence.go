package cutover

import (
	"fmt"
	"math/big"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Position is where a sequence stands: Called says that Last was given out.
type Position struct {
	Last   int64
	Called bool
}

// Kind is how a sequence counts.
type Kind struct {
	Step, Min, Max int64
	Cycle          bool
}

// Sequence is one of the source's, and its namesake at the destination.
type Sequence struct {
	Name              string // quoted, with its schema
	Source            Position
	Here, There       Kind // at the source; at the destination
	Missing           bool // at the destination
	Destination, Want Position
	Problem           string // why the destination's cannot be put ahead; "" where it can

	owner string // of the destination's, quoted; "" where this role is not a member of it
}

// cycles reports whether all numbers come again at both ends.
func (s *Sequence) cycles() bool { return s.Here.Cycle && s.There.Cycle }

// Change reports whether the destination's sequence has to be moved.
func (s *Sequence) Change() bool { return !s.Missing && s.Problem == "" && s.Want != s.Destination }

func (s *Sequence) findings() (fs preflight.Findings) {
	add := func(severity preflight.Severity, code, remedy, format string, args ...any) {
		fs = append(fs, preflight.Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	switch {
	case s.Missing:
		add(preflight.Error, "no_sequence", "make it, or drop it at the source", "sequence %s is not at the destination", s.Name)
	case s.Problem != "":
		add(preflight.Error, "sequence_range", "alter it at the destination", "sequence %s: %s", s.Name, s.Problem)
	case s.Here != s.There:
		add(preflight.Warning, "sequence_differs", "", "sequence %s counts in another way at the destination (increment, bounds or cycle)", s.Name)
	}
	return fs
}

// decide finds where the destination's sequence has to stand, so that it gives out none of the source's numbers again: margin steps beyond
// the source, never back, and in its own rhythm where it counts in steps. One that cycles at both ends, or that was never used, is put where the source's is.
func (s *Sequence) decide(margin int64) {
	s.Want = s.Destination
	if s.Missing {
		return
	}
	d := s.There
	if s.cycles() {
		s.Want = s.Source
		if s.Want.Last < d.Min || s.Want.Last > d.Max {
			s.Problem = fmt.Sprintf("%d is outside of its bounds at the destination", s.Want.Last)
		}
		return
	}
	if (s.Here.Step < 0) != (d.Step < 0) {
		s.Problem = "it counts in the other direction at the destination"
		return
	}
	// All in terms of the next number, in numbers that do not overflow.
	step := big.NewInt(d.Step)
	next := nextOf(s.Source, s.Here.Step)
	if s.Source.Called && margin > 0 {
		ahead := new(big.Int).Mul(big.NewInt(margin), big.NewInt(s.Here.Step))
		beyond := new(big.Int).Add(next, ahead)
		// A margin is not worth the last numbers: within the source's bounds only.
		if inside(beyond, s.Here) {
			next = beyond
		}
	}
	have := nextOf(s.Destination, d.Step)
	if before(next, have, d.Step) || next.Cmp(have) == 0 {
		return
	}
	// The destination's own rhythm: numbers that it would reach by its steps.
	rest := new(big.Int).Mod(new(big.Int).Sub(next, have), new(big.Int).Abs(step))
	if rest.Sign() != 0 {
		if d.Step > 0 {
			next.Add(next, new(big.Int).Sub(new(big.Int).Abs(step), rest))
		} else {
			next.Sub(next, rest)
		}
	}
	last := new(big.Int).Sub(next, step)
	switch {
	case !s.Source.Called && inside(next, d):
		s.Want = Position{Last: next.Int64()}
	case inside(last, d):
		s.Want = Position{Last: last.Int64(), Called: true}
	case inside(next, d):
		s.Want = Position{Last: next.Int64()}
	default:
		s.Problem = fmt.Sprintf("%s, its next number, is outside of its bounds at the destination", next)
	}
}

func nextOf(p Position, step int64) *big.Int {
	n := big.NewInt(p.Last)
	if p.Called {
		n.Add(n, big.NewInt(step))
	}
	return n
}

// before reports whether a comes before b when counting in steps.
func before(a, b *big.Int, step int64) bool {
	if step < 0 {
		return a.Cmp(b) > 0
	}
	return a.Cmp(b) < 0
}

func inside(n *big.Int, k Kind) bool {
	return n.IsInt64() && n.Int64() >= k.Min && n.Int64() <= k.Max
}
