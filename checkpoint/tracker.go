package checkpoint

import (
	"errors"
	"fmt"
	"sort"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Errors of a Tracker; both are bugs of the caller, and stop the pipe.
var (
	// ErrOrder: a position was noted below one noted before.
	ErrOrder = errors.New("position is out of order")
	// ErrUnknown: a position was acknowledged that is not outstanding.
	ErrUnknown = errors.New("position is not outstanding")
)

// Tracker turns acknowledgements in any order into one safe position. Its memory is bounded
// by what is outstanding. It belongs to one goroutine.
type Tracker struct {
	safe   wal.LSN
	noted  wal.LSN
	open   []mark // ascending; open[head:] are in use
	head   int
	shared int // outstanding acknowledgements
}

// mark is one position and how many acknowledgements it waits for: frames that complete no
// position of their own repeat the one before.
type mark struct {
	lsn     wal.LSN
	waiting int
}

// NewTracker starts at a position that is safe already.
func NewTracker(safe wal.LSN) *Tracker { return &Tracker{safe: safe, noted: safe} }

// Note adds a position to wait for; positions come in order and may repeat. Errors: ErrOrder.
func (t *Tracker) Note(end wal.LSN) error {
	if end < t.noted {
		return fmt.Errorf("note position %s after %s: %w", end, t.noted, ErrOrder)
	}
	t.noted = end
	t.shared++
	if n := len(t.open); n > t.head && t.open[n-1].lsn == end {
		t.open[n-1].waiting++
		return nil
	}
	t.open = append(t.open, mark{lsn: end, waiting: 1})
	return nil
}

// Done acknowledges one noting of end. Errors: ErrUnknown, also for a second acknowledgement
// of the same noting once the position is safe.
func (t *Tracker) Done(end wal.LSN) error {
	open := t.open[t.head:]
	i := sort.Search(len(open), func(i int) bool { return open[i].lsn >= end })
	if i == len(open) || open[i].lsn != end || open[i].waiting == 0 {
		return fmt.Errorf("acknowledge position %s: %w", end, ErrUnknown)
	}
	open[i].waiting--
	t.shared--
	for t.head < len(t.open) && t.open[t.head].waiting == 0 {
		t.safe = t.open[t.head].lsn
		t.head++
	}
	t.compact()
	return nil
}

// compact gives the used-up front back once it is the larger part.
func (t *Tracker) compact() {
	if t.head < len(t.open)-t.head {
		return
	}
	t.open = t.open[:copy(t.open, t.open[t.head:])]
	t.head = 0
	if cap(t.open) > 1024 && len(t.open) < cap(t.open)/8 {
		t.open = append(make([]mark, 0, len(t.open)*2), t.open...)
	}
}

// Safe is the highest position at and below which everything noted is acknowledged. It never
// decreases and never exceeds Noted.
func (t *Tracker) Safe() wal.LSN { return t.safe }

// Noted is the last position noted.
func (t *Tracker) Noted() wal.LSN { return t.noted }

// Outstanding is the number of acknowledgements waited for.
func (t *Tracker) Outstanding() int { return t.shared }
