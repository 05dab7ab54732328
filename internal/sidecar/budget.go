package sidecar

import "time"

// Publishing again from the slot costs the origin work and its peers repetitions. A peer that
// wants it again and again without end gets it a few times, and then seldom.
const (
	rewindBurst  = 20
	rewindRefill = 30 * time.Second
)

// budget is what one peer may still ask for.
type budget struct {
	left  float64
	since time.Time
}

// take reports whether one more is granted at the time now.
func (b *budget) take(now time.Time) bool {
	if b.since.IsZero() {
		b.left = rewindBurst
	} else {
		b.left = min(rewindBurst, b.left+now.Sub(b.since).Seconds()/rewindRefill.Seconds())
	}
	b.since = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// mayRewind takes one rewind from the peer's budget. The caller holds mu.
func (o *outboundState) mayRewind(peer string) bool {
	if o.budgets == nil {
		o.budgets = map[string]*budget{}
	}
	b := o.budgets[peer]
	if b == nil {
		b = &budget{}
		o.budgets[peer] = b
	}
	return b.take(time.Now())
}
