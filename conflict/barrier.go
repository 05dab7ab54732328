package conflict

// Found is what an applier finds of a key, under the lock of its row and its entry.
type Found struct {
	Row     bool
	Content []byte // of the row; needed for tables without stamp columns
	Entry   bool   // there is an entry beside the table
	Live    bool   // it says that a row lives
	// Noted: an own change of the key is known to wait for the self-merge.
	Noted     bool
	Stampless bool // no column of the table holds a stamp
}

// NeedsBarrier reports whether this region may have committed a change of the key whose stamp is
// not known yet, because the self-merge has not seen it. Then the event has to wait until the
// region's own changes up to now are merged:
//
//	row   entry  event            | barrier
//	-     -      born             | if an own change of the key waits
//	-     -      not born         | yes: an own delete may have removed what it was made over
//	-     live   -                | yes: an own delete
//	yes   dead   -                | yes: an own insert
//	yes   -      -                | only without stamp columns: unless the row is the event's base
//	-     dead   -                | no
//
// An own insert that nobody knows of yet is a row with a stamp like any other.
func NeedsBarrier(e Event, f Found) bool {
	switch {
	case !f.Row && !f.Entry:
		return !e.born() || f.Noted
	case !f.Row:
		return f.Live
	case f.Entry && !f.Live:
		return true
	case !f.Stampless:
		return false
	}
	// The row is known by a time beside the table; is it the row that the time is of?
	return !e.Base.HasDigest || Digest(f.Content) != e.Base.Digest
}
