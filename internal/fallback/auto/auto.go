// Package auto decides when a region leaves the stream by itself, and when it comes back: from how long the way to the peer has been
// there or not. It does no I/O and reads no clock. docs/fallback.md says what follows from a decision.
package auto

import "time"

// Limits are how long the way has to be away before the stream is left, and how long it has to be back before it is taken again.
type Limits struct{ After, Back time.Duration }

// steady is what is too short to count: a link that comes for less does not end a time without it, and one that is gone for less does not
// end a time with it.
func (l Limits) steady() time.Duration {
	return min(max(min(l.After, l.Back)/10, time.Second), 30*time.Second)
}

const (
	// remembered is how long a time away makes the next way back slower: each one copies all tables.
	remembered = time.Hour
	// doubled is how often Back is doubled at the most.
	doubled = 4
)

// Decider is for one region and one peer, and for one goroutine. The times that it is given rise.
type Decider struct {
	Limits
	down, up time.Time // since when the way is gone, and there; zero for not
	left     []time.Time
}

// Stream is asked while the region streams, again and again: whether it is time to leave the stream. linked says that the peer's process answers.
func (d *Decider) Stream(at time.Time, linked bool) bool {
	if linked {
		d.up = since(d.up, at)
		if at.Sub(d.up) >= d.steady() {
			d.down = time.Time{}
		}
		return false
	}
	d.up, d.down = time.Time{}, since(d.down, at)
	return at.Sub(d.down) >= d.After
}

// Away is asked while the region is in the other mode: whether it is time to come back.
func (d *Decider) Away(at time.Time, linked bool) bool {
	if !linked {
		d.down = since(d.down, at)
		if at.Sub(d.down) >= d.steady() {
			d.up = time.Time{}
		}
		return false
	}
	d.down, d.up = time.Time{}, since(d.up, at)
	return at.Sub(d.up) >= d.BackAfter(at)
}

// BackAfter is how long the way has to be back now: twice as long for each time that the stream was left within the last hour but one.
func (d *Decider) BackAfter(at time.Time) time.Duration {
	n := 0
	for _, t := range d.left {
		if at.Sub(t) < remembered {
			n++
		}
	}
	return d.Back << min(max(n-1, 0), doubled)
}

// Left notes that the stream was left.
func (d *Decider) Left(at time.Time) {
	d.left = append(d.left, at)
	if len(d.left) > doubled+1 {
		d.left = d.left[1:]
	}
	d.Reset()
}

// Reset begins to count anew: behind a switch, and where this process is not the one at work.
func (d *Decider) Reset() { d.down, d.up = time.Time{}, time.Time{} }

func since(t, at time.Time) time.Time {
	if t.IsZero() {
		return at
	}
	return t
}
