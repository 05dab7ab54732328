package checkpoint

// chainsKept is how many frames Chains remembers: some minutes of a busy stream, in 2 MiB.
const chainsKept = 1 << 16

// Chains remembers the chains of the newest frames of the present incarnation, to tell whether a
// frame that a peer names is one of them. A stream that loses its end gives the numbers of the
// lost frames out again. A peer that has read those is then at a frame of another
// content, and neither its number nor its position tells. The zero value knows nothing.
type Chains struct {
	incarnation uint32
	last        uint64 // newest frame
	known       uint64 // so many up to it
	ring        [][32]byte
}

// Begin goes on behind a frame of an incarnation; number 0 is its beginning. What is known stays
// known where that frame is the one that is remembered.
func (c *Chains) Begin(incarnation uint32, number uint64, chain [32]byte) {
	if same, known := c.Is(number, chain); known && same && c.incarnation == incarnation {
		c.known -= c.last - number
		c.last = number
		return
	}
	c.incarnation, c.last, c.known = incarnation, number, 0
	if number > 0 {
		c.last--
		c.Note(number, chain)
	}
}

// Note takes the next frame.
func (c *Chains) Note(number uint64, chain [32]byte) {
	if number != c.last+1 {
		c.known = 0
	}
	if uint64(len(c.ring)) <= number%chainsKept {
		c.ring = append(c.ring, make([][32]byte, number%chainsKept+1-uint64(len(c.ring)))...)
	}
	c.ring[number%chainsKept] = chain
	c.last, c.known = number, min(c.known+1, chainsKept)
}

// Is reports whether a frame of the incarnation is the one that has a chain, and whether it is
// remembered.
func (c *Chains) Is(number uint64, chain [32]byte) (same, known bool) {
	if number > c.last || c.last-number >= c.known {
		return false, false
	}
	return c.ring[number%chainsKept] == chain, true
}
