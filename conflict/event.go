package conflict

import "github.com/pgwaltz/pgwaltz/wal"

// EventKind says how an event came to be.
type EventKind uint8

const (
	// Live events come from the origin's WAL, in its order.
	Live EventKind = iota
	// Copy events are rows read from the origin's table (initial copy, resync), and behind
	// them its tombstones. They say what is, not what happened. What beats them is
	// pushed back: the region that copies may have lost it in a restore, and the copy of the other
	// one may have been read before it came there, or not be asked for.
	Copy
	// Repair events are the entry of a region that refused an event (pushback), as it was
	// in the transaction that refused it. They may lose silently and are never pushed
	// back, which is why pushback ends.
	Repair
	// Self events are a region's own Live events run against its own database (see
	// Stamping.SelfMerge). They normally find their own effect; what they lose against is
	// a later write of this region, or was recorded when it came in.
	Self
)

// String returns the word that logs use.
func (k EventKind) String() string {
	switch k {
	case Copy:
		return "copy"
	case Repair:
		return "repair"
	case Self:
		return "self"
	}
	return "live"
}

// Event is one change of one key, or the net effect of a run of changes of one key by one
// origin: then Op, Stamp, Content and Complete are those of the last change, Base and Born
// those of the first.
type Event struct {
	Kind  EventKind
	Op    wal.Op // Insert, Update or Delete
	Stamp wal.Stamp
	Base  wal.Base
	// Content is Content of the image; needed when NeedsContent says so. nil for deletes.
	Content []byte
	// Complete: no value of the image is absent, or the local row was seen to have the same
	// ones (wal.Digest). Deletes are always complete.
	Complete bool
	// Filled: Complete, and some values are those of the local row, which the event names by their
	// digests. The origin read them when the change was in its WAL already, perhaps of a later row.
	Filled bool
	// Born: the first change of the run was an insert. Implied by Op Insert.
	Born bool
	// CommitTime is the clock of the origin at commit.
	CommitTime wal.Micros
}

func (e *Event) born() bool { return e.Born || e.Op == wal.Insert }

// Side is one entry of a key: a live row, a tombstone, or nothing known.
type Side struct {
	Known bool // a row or a tombstone is there
	Alive bool
	Stamp wal.Stamp
	// Content of a live row, over the columns of the event's relation; needed when
	// NeedsContent says so.
	Content []byte
	// DeletedAt is when a dead entry was deleted, by the clock of the region that did
	// it (the commit time that the tombstone carries); only for Policy.ForgetAfter.
	// 0 means unknown.
	DeletedAt wal.Micros
}

// Side returns the event as the entry that it makes.
func (e *Event) Side() Side {
	if e.Op == wal.Delete {
		return Side{Known: true, Stamp: e.Stamp}
	}
	return Side{Known: true, Alive: true, Stamp: e.Stamp, Content: e.Content}
}
