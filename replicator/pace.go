package replicator

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// pace is how fast the own WAL is stamped since it is read anew, from the confirmed position of the slot. All in front of that is merged, so
// where a sidecar is started again every few seconds, and needs longer than that to read what is left, a self-merge that waits
// for all of it never merges anything, the slot is never confirmed, and more is left each time. So it does not wait for what would take
// long while the reading is young. One that has gone on for some time will come to its end.
type pace struct {
	began time.Time // when the WAL was opened; zero: not yet
	from  wal.LSN   // what was stamped when somebody asked first
	asked time.Time // and when that was
}

const (
	// youngFor is how long a reading of the WAL is young.
	youngFor = 30 * time.Second
	// pacedFor is how long stamping is watched before anything is said of it.
	pacedFor = 500 * time.Millisecond
	// farFor is for how long a wait is worth its while.
	farFor = 3 * time.Second
	// farLeast is how much WAL is left at least where that is not so: what is less is soon read, whatever holds it up just now.
	farLeast = 8 << 20
)

// young reports whether the WAL is read anew since a short time only.
func (p *pace) young(now time.Time) bool { return !p.began.IsZero() && now.Sub(p.began) <= youngFor }

// far reports whether stamping, which has come to done, needs too long for the rest of the way to a position.
func (p *pace) far(now time.Time, done, at wal.LSN) bool {
	if done == 0 || !p.young(now) || at < done+farLeast {
		return false
	}
	if p.asked.IsZero() || done < p.from {
		p.from, p.asked = done, now
	}
	took := now.Sub(p.asked)
	if took < pacedFor {
		return false
	}
	return float64(at-done)*float64(took) > float64(farFor)*float64(done-p.from)
}
