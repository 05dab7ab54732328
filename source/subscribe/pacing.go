package subscribe

import (
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
)

// maxPatience bounds how long a session may be silent, however slow the link is.
const maxPatience = time.Minute

// pacing decides how much the server may have under way to us, and how long silence is no reason
// for doubt (broker.Reach). What a session that is given up had under way is carried in vain, so a
// session on a link that takes seconds for a frame is given the
// time. It outlives sessions. It belongs to the reading goroutine.
type pacing struct {
	reach    broker.Reach  // what the next pull may carry
	shortest time.Duration // silence that is no doubt on any link
	slow     bool          // the last pull took long, or nothing is known: one at a time
	patience time.Duration
}

func newPacing(largest int, silence time.Duration) pacing {
	return pacing{reach: broker.NewReach(broker.MinReach, largest), shortest: silence, slow: true, patience: silence}
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

// tooSmall says that the next message did not fit in a pull.
func (p *pacing) tooSmall() { p.reach.Grow() }

// came says that something came after a silence of d.
func (p *pacing) came(d time.Duration) {
	p.patience = min(max(p.shortest, 2*d, p.patience*3/4), maxPatience)
}

// silent says that nothing came for the whole patience.
func (p *pacing) silent() { p.patience = min(4*p.patience, maxPatience) }
