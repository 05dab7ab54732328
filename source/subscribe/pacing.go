package subscribe

import (
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
)

// maxPatience bounds how long a session may be silent, however slow the link is.
const maxPatience = time.Minute

// pacing decides how much the server may have under way to us, and how long silence is no reason
// for doubt (broker.Reach). What a session that is given up had under way is carried in vain, so a
// session on a link that takes seconds for a frame is given the time. It outlives sessions. It
// belongs to the reading goroutine.
type pacing struct {
	reach    broker.Reach  // what the next pull may carry
	largest  int           // what reach may grow to
	needed   int           // what the next message needs at least; 0: reach is enough, as far as is known
	shortest time.Duration // silence that is no doubt on any link
	slow     bool          // the last pull took long, or nothing is known: one at a time
	patience time.Duration
}

func newPacing(largest int, silence time.Duration) pacing {
	return pacing{reach: broker.NewReach(broker.MinReach, largest), largest: largest, shortest: silence, slow: true, patience: silence}
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
	p.slow = took > broker.ReachSlow
	p.reach.Took(took)
}

// size is what the next pull may carry.
func (p *pacing) size() int { return max(p.reach.Bytes(), p.needed) }

// maxMessage is what a pull carries at most: more than the largest frame that may be configured.
const maxMessage = 32 << 20

// tooSmall says that the next message did not fit in a pull. A single one always goes, however little
// may be under way.
func (p *pacing) tooSmall() {
	if size := p.size(); size >= p.largest {
		p.needed = min(2*size, maxMessage)
	}
	p.reach.Grow()
}

// fitted says that a message came.
func (p *pacing) fitted() { p.needed = 0 }

// came says that something came after a silence of d.
func (p *pacing) came(d time.Duration) {
	p.patience = min(max(p.shortest, 2*d, p.patience*3/4), maxPatience)
}

// silent says that nothing came for the whole patience.
func (p *pacing) silent() { p.patience = min(4*p.patience, maxPatience) }
