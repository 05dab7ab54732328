package conflict

import "github.com/pgwaltz/pgwaltz/wal"

// Own is an own, published change that the self-merge runs against this region's database, and
// what it finds there, read under the lock of the row.
type Own struct {
	Event Event
	// Local is the entry of the key as Resolve sees it: the row, or the tombstone.
	Local Side
	// Tombstone is the dead entry beside a row; not Known when there is none.
	Tombstone Side
	// Holds: the row is the one that the change wrote. Equal stamps are not enough for that: a
	// row of another region may carry the same.
	Holds bool
	// Mine: nothing that another region has written is known of the key, so this region wrote the
	// row. Of tables without stamp columns not every own change is noted as waiting (Later).
	Mine bool
	// Carried: the rows of the table carry their stamps. Who put another row there, in the first
	// life of the key, has compared it with the change, or with what followed it.
	Carried bool
	// Later: an own change of the key behind this one waits for the self-merge, or the row that this one
	// wrote was truncated away.
	Later bool
	// Told: the change waited here, and another region was told of it (Waiting.Held): it may stand there, so a
	// later own change that is below it does not settle it.
	Told bool
	// Stamped: every own change that was committed when the row was read is stamped, so that
	// Later is the whole truth.
	Stamped bool
}

// OwnStep is what the self-merge does with an own change.
type OwnStep uint8

const (
	// OwnRecord: the tables say what the change says; its entry is written.
	OwnRecord OwnStep = iota
	// OwnSkip: a later own change brings its own entry.
	OwnSkip
	// OwnWait: whether a later own change wrote the row is not known yet, or of one that was told of, what that makes of
	// the row. Nothing is decided; the change is tried again when the WAL is stamped, or merged, further.
	OwnWait
	// OwnResolve: another region's change stands in the tables, written before this one was
	// known; Resolve decides between the change and Side.
	OwnResolve
)

// DecideOwn says what the self-merge does. It is the table
//
//	op      row     tombstone  later  stamped | step
//	delete  none    -          -      -       | record
//	upsert  its own none,<     -      -       | record
//	upsert  mine    -          -      -       | skip
//	-       -       -          yes    -       | wait, if it was told of
//	upsert  carried -          -      -       | skip, if it was not told of
//	-       -       -          yes    -       | skip
//	-       -       -          no     no      | wait
//	upsert  its own >          no     yes     | resolve against the tombstone
//	-       other   -          no     yes     | resolve against the row
//	upsert  none    -          no     yes     | resolve against the tombstone, or nothing
//
// A tombstone above the change beside the change's own row was written by an applier that could
// not see the row yet.
func DecideOwn(p Policy, o Own) (OwnStep, Side) {
	beaten := o.Tombstone.Known && p.CompareSides(o.Event.Side(), o.Tombstone) < 0
	switch {
	case o.Event.Op == wal.Delete && !o.Local.Alive:
		return OwnRecord, o.Local
	case o.Event.Op != wal.Delete && o.Holds && !beaten:
		return OwnRecord, o.Local
	case o.Event.Op != wal.Delete && o.Local.Alive && !o.Holds && o.Mine:
		return OwnSkip, o.Local // it is not this change's row, so it is that of a later one
	case o.Told && (o.Later || !o.Stamped):
		return OwnWait, o.Local
	case !o.Told && o.Event.Op != wal.Delete && o.Local.Alive && !o.Holds && o.Carried && o.Event.Stamp.Generation == 0 && o.Local.Stamp.Generation == 0:
		return OwnSkip, o.Local
	case o.Later:
		return OwnSkip, o.Local
	case !o.Stamped:
		return OwnWait, o.Local
	case o.Holds && beaten:
		return OwnResolve, o.Tombstone
	}
	return OwnResolve, o.Local
}
