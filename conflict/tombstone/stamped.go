package tombstone

import (
	"errors"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrStalled says that nothing is stamped until the self-merge has at least recorded the items
// of its changes.
var ErrStalled = errors.New("stamping waits for own changes to be recorded")

// ErrFarBehind says that so much of the own WAL is left to stamp that the wait for it is given up for now: a sidecar that is
// started again every few seconds would never come to its end.
var ErrFarBehind = errors.New("much of the own WAL is not stamped yet")

// stamped is how far this region's own WAL is known to this process.
type stamped struct {
	start    wal.LSN             // an earlier process, or session, may have stamped up to here
	done     wal.LSN             // every own change below is stamped
	session  wal.LSN             // as done, by the session at hand, which may read again
	current  wal.LSN             // commit of the transaction that is being stamped; 0: none
	merged   wal.LSN             // every own change below is merged
	merging  wal.LSN             // the self-merge's open transaction holds own changes below; of those that wait
	recorded wal.LSN             // the items of every own change below are in the table
	free     wal.LSN             // the last own change that is recorded without an item; 0: none
	tracked  bool                // the server keeps commit times
	since    uint32              // of the transactions from this one on
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
// once more. The session before may have ended within what the decoder gave out at once, when some of it was
// stamped, and published. Until that is stamped again there is no position for a tombstone without a row (Blind): it would
// come in front of it, and change its stamps.
func (x *Index) Reading() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wal.current != 0 {
		x.wal.start = max(x.wal.start, x.wal.current+1)
	}
	x.wal.session, x.wal.stalled, x.wal.current = 0, 0, 0
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

// Caught reports whether everything is stamped that an earlier process, or session, may have stamped.
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

// BeginClock begins the clock of a session that reads the WAL from a position on (Clock.Begin).
func (x *Index) BeginClock(from wal.LSN, high wal.Micros) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock.Begin(from, high)
}

// Clock is the time of an own transaction (Clock.Time).
func (x *Index) Clock(commit wal.LSN, t wal.Micros) wal.Micros {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.clock.Time(commit, t)
}

// ClockAt is what has to be stored before a position is confirmed (Clock.At). It goes as far as the
// session at hand has stamped: of what it has not decoded yet the clock knows nothing.
func (x *Index) ClockAt(l wal.LSN) (wal.LSN, wal.Micros) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.clock.At(min(l, x.wal.session))
}

// ForgetClock is told that the clock is stored up to a position that was confirmed.
func (x *Index) ForgetClock(l wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock.Forget(l)
}

// Track says that the server keeps the commit times of transactions from since on: rows that they
// wrote need no entry, as long as nothing else is known of their keys.
func (x *Index) Track(since uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wal.tracked, x.wal.since = true, uint32(since)
}

// Tracks reports whether the server keeps the commit time of a transaction of this region.
func (x *Index) Tracks(xid wal.XID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tracks(xid)
}

func (x *Index) tracks(xid wal.XID) bool {
	return x.wal.tracked && int32(uint32(xid)-x.wal.since) >= 0
}

// Free is told of an own change that needs no item: nothing is known of its key, and its stamp
// is its commit time. Where the server does not keep that, the self-merge writes it down, and
// Waiting counts it.
func (x *Index) Free(xid wal.XID, commit wal.LSN) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.tracks(xid) {
		x.wal.free = max(x.wal.free, commit)
	}
}
