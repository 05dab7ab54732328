package tombstone

import (
	"errors"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrStalled says that nothing is stamped until the self-merge has at least recorded the items
// of its changes.
var ErrStalled = errors.New("stamping waits for own changes to be recorded")

// stamped is how far this region's own WAL is known to this process.
type stamped struct {
	start    wal.LSN             // an earlier process may have stamped up to here
	done     wal.LSN             // every own change below is stamped
	session  wal.LSN             // as done, by the session at hand, which may read again
	current  wal.LSN             // commit of the transaction that is being stamped; 0: none
	merged   wal.LSN             // every own change below is merged
	recorded wal.LSN             // the items of every own change below are in the table
	stalled  wal.LSN             // the stamper waits until this is merged or recorded; 0: it does not
	recent   map[uint32]struct{} // stamped transactions that may not be visible yet
}

// maxRecent bounds the transactions that may not be visible yet.
const maxRecent = 1 << 16

// Start notes up to where an earlier process may have stamped local changes.
func (x *Index) Start(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.start = max(x.wal.start, l)
}

// Open is told of an own transaction before its first change is stamped. It reports false when
// too many transactions were opened since the last call of Visible; call that first, then.
func (x *Index) Open(xid wal.XID, commit wal.LSN) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.current = commit
	x.wal.recent[uint32(xid)] = struct{}{}
	return len(x.wal.recent) < maxRecent
}

// Stamped is told that every own change below a position is stamped. It never goes back while
// the WAL is the same: what is decoded again gets the same stamps.
func (x *Index) Stamped(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wal.current < l {
		x.wal.current = 0
	}
	x.wal.done, x.wal.session = max(x.wal.done, l), l
	x.wake()
}

// Reading is told that the WAL is read again, by a new session: what is not merged is noted
// once more.
func (x *Index) Reading() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.session, x.wal.stalled = 0, 0
	for _, s := range x.own.segments {
		s.old = true
	}
	x.wake()
}

// Session is the position up to which the session at hand has stamped own changes.
func (x *Index) Session() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.session
}

// Done is the position up to which own changes are stamped.
func (x *Index) Done() wal.LSN {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.done
}

// Caught reports whether this process has stamped everything that an earlier one may have.
func (x *Index) Caught() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.wal.done >= x.wal.start && x.wal.done > 0
}

// Visible takes the transactions that were in progress when a snapshot was taken, after the
// transactions opened so far were read from the WAL. Others are visible by now.
func (x *Index) Visible(inProgress []uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := map[uint32]struct{}{}
	for _, id := range inProgress {
		if _, ok := x.wal.recent[id]; ok {
			left[id] = struct{}{}
		}
	}
	x.wal.recent = left
}

// Unseen reports whether one of the transactions that a snapshot takes for in progress is
// stamped already, or is being stamped: the snapshot does not show what it wrote.
func (x *Index) Unseen(inProgress []uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range inProgress {
		if _, ok := x.wal.recent[id]; ok {
			return true
		}
	}
	return false
}
