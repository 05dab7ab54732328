package broker

import "time"

const (
	// MinReach is what may be under way on any link: a slow one carries it within seconds, and a
	// fast one is at its full reach after a few steps.
	MinReach = 256 << 10
	// What came within reachFast lets more be under way, what took more than ReachSlow less.
	reachFast = 250 * time.Millisecond
	// ReachSlow is how long something is under way at most before its link counts as slow.
	ReachSlow = time.Second
)

// Reach is how many bytes may be under way on a link in one direction. What is under way on a slow
// link delays everything else on it, answers to pings too, so it is about what the link carries in
// a second. It starts no goroutine and reads no clock; its owner guards it.
type Reach struct{ bytes, most int }

// NewReach returns one that begins with first bytes and never exceeds most.
func NewReach(first, most int) Reach { return Reach{bytes: min(first, most), most: most} }

// Bytes may be under way.
func (r *Reach) Bytes() int { return r.bytes }

// Took says how long something was under way: with its acknowledgement, or from when it was asked
// for until it was there.
func (r *Reach) Took(d time.Duration) {
	switch {
	case d < reachFast:
		r.Grow()
	case d > ReachSlow:
		r.bytes = max(r.bytes/2, min(MinReach, r.most))
	}
}

// Grow lets twice as much be under way.
func (r *Reach) Grow() { r.bytes = min(2*r.bytes, r.most) }
