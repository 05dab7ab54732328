package subscribe

import "time"

const (
	// minPull is where a pull begins: a slow link carries it within seconds, and a fast one is at
	// its full size after a few.
	minPull = 256 << 10
	// A pull that took less than pullFast is followed by larger ones, one that took more than
	// pullSlow by smaller ones.
	pullFast = 250 * time.Millisecond
	pullSlow = time.Second
	// maxPatience bounds how long a session may be silent, however slow the link is.
	maxPatience = time.Minute
)

// pacing decides how much the server may have under way to us, and how long silence is no reason
// for doubt. What is under way on a slow link delays everything else on it, answers to pings too;
// and what a session that is given up had under way is carried in vain. So it is about what the
// link carries in a second, and a session on a link that takes seconds for a frame is given the
// time. It outlives sessions. It belongs to the reading goroutine.
type pacing struct {
	largest  int           // bytes that a pull may carry at most
	shortest time.Duration // silence that is no doubt on any link
	size     int           // bytes that the next pull may carry
	slow     bool          // the last pull took long, or nothing is known: one at a time
	patience time.Duration
}

func newPacing(largest int, silence time.Duration) pacing {
	return pacing{largest: largest, shortest: silence, size: min(minPull, largest), slow: true, patience: silence}
}

// pulls is how many pulls may be under way.
func (p *pacing) pulls() int {
	if p.slow {
		return 1
	}
	return pulls
}

// full says that a pull ended because it was full, and how long it was the one being answered.
func (p *pacing) full(took time.Duration) {
	p.slow = took > pullSlow
	switch {
	case took < pullFast:
		p.size = min(2*p.size, p.largest)
	case took > pullSlow:
		p.size = max(p.size/2, min(minPull, p.largest))
	}
}

// tooSmall says that the next message did not fit in a pull.
func (p *pacing) tooSmall() { p.size = min(2*p.size, p.largest) }

// came says that something came after a silence of d.
func (p *pacing) came(d time.Duration) {
	p.patience = min(max(p.shortest, 2*d, p.patience*3/4), maxPatience)
}

// silent says that nothing came for the whole patience.
func (p *pacing) silent() { p.patience = min(4*p.patience, maxPatience) }
