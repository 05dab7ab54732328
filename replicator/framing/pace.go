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
	changes float64    // and their changes
	counted [2]int     // transactions and changes since since
	since   time.Time
	due     time.Time // when what is gathered goes out at the latest; zero: nothing gathered
}

const (
	busyRate   = 1500 // transactions or changes per second
	busyAtAll  = 100  // transactions per second, below which a frame for each costs little
	rateWindow = 50 * time.Millisecond

	// A frame of a busy stream is to hold about so many transactions; each costs both regions an
	// fsync, a commit and a dozen wake-ups.
	busyGroup  = 16
	busyLinger = 7 // times the configured linger at most

	behindBy     = wal.Micros(200 * time.Millisecond / time.Microsecond)
	behindLinger = 40 * time.Millisecond
)

// count notes transactions with their changes, and measures their rate.
func (p *pace) count(transactions, changes int, now time.Time) {
	p.counted[0] += transactions
	p.counted[1] += changes
	if d := now.Sub(p.since); d >= rateWindow {
		p.rate, p.changes = float64(p.counted[0])/d.Seconds(), float64(p.counted[1])/d.Seconds()
		p.counted, p.since = [2]int{}, now
	}
}

// behind reports whether what is read now was committed a while ago: then nobody waits for
// the single transaction, and frames had better be full.
func (p *pace) behind(now time.Time) bool {
	return p.newest != 0 && wal.MicrosOf(now)-p.newest > behindBy
}

// busy reports whether so much comes that a frame for each transaction would cost both
// regions more than the few milliseconds by which gathering delays them.
func (p *pace) busy() bool {
	return p.rate > busyRate || p.rate > busyAtAll && p.changes > busyRate
}

// gather is how long to gather: longer when many transactions come.
func (p *pace) gather(now time.Time) time.Duration {
	switch {
	case p.behind(now):
		return max(p.linger, behindLinger)
	case p.busy():
		group := time.Duration(busyGroup / p.rate * float64(time.Second))
		return min(max(2*p.linger, group), busyLinger*p.linger)
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
