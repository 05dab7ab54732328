package framing

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// pace decides how long to gather transactions before they are framed.
type pace struct {
	linger  time.Duration
	newest  wal.Micros // commit time of the transaction gathered last
	rate    float64    // transactions per second, lately
	counted int
	since   time.Time
	due     time.Time // when what is gathered goes out at the latest; zero: nothing gathered
}

const (
	busyRate   = 1500 // transactions per second
	rateWindow = 50 * time.Millisecond

	behindBy     = wal.Micros(200 * time.Millisecond / time.Microsecond)
	behindLinger = 40 * time.Millisecond
)

// count notes transactions and measures their rate.
func (p *pace) count(n int, now time.Time) {
	p.counted += n
	if d := now.Sub(p.since); d >= rateWindow {
		p.rate = float64(p.counted) / d.Seconds()
		p.counted, p.since = 0, now
	}
}

// behind reports whether what is read now was committed a while ago: then nobody waits for
// the single transaction, and frames had better be full.
func (p *pace) behind(now time.Time) bool {
	return p.newest != 0 && wal.MicrosOf(now)-p.newest > behindBy
}

// busy reports whether transactions come so fast that a frame for each would cost both
// regions more than the few milliseconds by which gathering delays them.
func (p *pace) busy() bool { return p.rate > busyRate }

// gather is how long to gather: longer when many transactions come.
func (p *pace) gather(now time.Time) time.Duration {
	switch {
	case p.behind(now):
		return max(p.linger, behindLinger)
	case p.busy():
		return 2 * p.linger
	}
	return p.linger
}

// next reports whether what is gathered goes out now; if not, when it will be due.
func (p *pace) next(now time.Time, inFlight int) (bool, time.Time) {
	if inFlight == 0 && !p.behind(now) && !p.busy() {
		return true, time.Time{} // nothing is under way, and the pipe is in step
	}
	if p.due.IsZero() {
		p.due = now.Add(p.gather(now))
	}
	return !now.Before(p.due), p.due
}
