package checkpoint

import (
	"encoding/binary"
	"testing"
)

func chainOf(n uint64) (c [32]byte) {
	binary.BigEndian.PutUint64(c[:], n)
	return c
}

func TestChains(t *testing.T) {
	t.Parallel()
	c := &Chains{}
	ask := func(what string, number, chain uint64, same, known bool) {
		t.Helper()
		if s, k := c.Is(number, chainOf(chain)); s != same || k != known {
			t.Errorf("%s: frame %d: same %v, known %v", what, number, s, k)
		}
	}
	ask("empty", 0, 0, false, false)
	ask("empty", 1, 1, false, false)
	c.Begin(3, 7, chainOf(7))
	ask("begun", 7, 7, true, true)
	ask("begun", 7, 8, false, true)
	ask("begun", 6, 6, false, false)
	ask("begun", 8, 8, false, false)
	for n := uint64(8); n <= 12; n++ {
		c.Note(n, chainOf(n))
	}
	ask("noted", 7, 7, true, true)
	ask("noted", 12, 12, true, true)
	ask("noted", 13, 13, false, false)
	c.Begin(3, 10, chainOf(10)) // the stream has lost 11 and 12
	ask("shorter", 9, 9, true, true)
	ask("shorter", 10, 10, true, true)
	ask("shorter", 11, 11, false, false)
	c.Note(11, chainOf(111))
	ask("another in its place", 11, 11, false, true)
	c.Begin(3, 11, chainOf(11)) // a frame that is not the remembered one
	ask("elsewhere", 11, 11, true, true)
	ask("elsewhere", 10, 10, false, false)
	c.Begin(4, 11, chainOf(11)) // another incarnation
	c.Begin(4, 0, chainOf(0))
	ask("new", 11, 11, false, false)
	for n := uint64(1); n <= chainsKept+5; n++ {
		c.Note(n, chainOf(n))
	}
	ask("far behind", 5, 5, false, false)
	ask("just kept", 6, 6, true, true)
	ask("newest", chainsKept+5, chainsKept+5, true, true)
	c.Note(2*chainsKept, chainOf(1)) // a hole
	ask("behind a hole", chainsKept+5, chainsKept+5, false, false)
}
