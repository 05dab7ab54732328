package conflict

import "slices"

// Verdict is what the receiver does with an event.
type Verdict uint8

const (
	// Same: the receiver has exactly this entry already; nothing is written.
	Same Verdict = iota
	// Apply: the event becomes the receiver's entry. For a delete that includes the
	// tombstone, for a row of a generation above 0 the marker of the generation below.
	Apply
	// Keep: the receiver's entry stays.
	Keep
	// Park: the event cannot be applied because its image is not complete; it is set
	// aside and its origin is asked for what it holds (wal.Wanted). The next complete event of
	// the key, or the repair that answers, supersedes it.
	Park
)

// String returns the word that the audit log uses.
func (v Verdict) String() string {
	switch v {
	case Apply:
		return "apply"
	case Keep:
		return "keep"
	case Park:
		return "park"
	}
	return "same"
}

// Type is the kind of a conflict, named as PostgreSQL names it where it has a name. The
// empty Type means that there was no conflict and nothing is to be recorded.
type Type string

const (
	// None: no conflict.
	None Type = ""
	// InsertExists: both regions inserted the key.
	InsertExists Type = "insert_exists"
	// UpdateOriginDiffers: the row that the update meets is not the one it overwrote at
	// its origin.
	UpdateOriginDiffers Type = "update_origin_differs"
	// UpdateExists: the update collides with another row in a secondary unique key.
	UpdateExists Type = "update_exists"
	// UpdateMissing: the row to update is not there, and no tombstone says why.
	UpdateMissing Type = "update_missing"
	// UpdateDeleted: an insert or update meets a tombstone.
	UpdateDeleted Type = "update_deleted"
	// DeleteOriginDiffers: the row that the delete meets is not the one it removed at its
	// origin.
	DeleteOriginDiffers Type = "delete_origin_differs"
	// DeleteMissing: the row to delete is gone already or never was there.
	DeleteMissing Type = "delete_missing"
	// MultipleUniqueConflicts: the row collides in more than one unique key.
	MultipleUniqueConflicts Type = "multiple_unique_conflicts"
	// Truncate: the origin truncated the table; truncates carry no stamps and are not applied.
	Truncate Type = "truncate"
	// Orphan: a row references one that another region has deleted; foreign keys are not enforced
	// for applied rows.
	Orphan Type = "fk_orphan"
	// ClockSkew: the stamp lies further ahead than the allowed clock skew.
	ClockSkew Type = "clock_skew"
)

// Types are all types that are recorded, in the order of the documents.
func Types() []Type {
	return []Type{InsertExists, UpdateOriginDiffers, UpdateExists, UpdateMissing, UpdateDeleted, DeleteOriginDiffers, DeleteMissing,
		MultipleUniqueConflicts, Truncate, Orphan, ClockSkew}
}

// Other stands for a type that another region tells of and this program does not know.
const Other Type = "other"

// Told is the type that another region tells of; Other for one that is none of Types: what a
// peer says becomes a label of metrics, and must not make up new ones.
func Told(word string) Type {
	if t := Type(word); slices.Contains(Types(), t) {
		return t
	}
	return Other
}

// Reason says in one word what decided.
type Reason string

const (
	ByGeneration Reason = "generation"   // one entry belongs to a later life of the key
	ByVersion    Reason = "version"      // the versions differ
	ByUpdatedAt  Reason = "updated_at"   // the times differ
	ByContent    Reason = "content"      // equal stamps; the contents differ, or one side is dead
	FastForward  Reason = "fast_forward" // the event overwrote exactly, or presumably, this entry
	Identical    Reason = "identical"    // both sides hold the same entry, or rows of the same content
	Missing      Reason = "missing"      // the receiver knows nothing of the key
	Tombstone    Reason = "tombstone"    // an equal tombstone is there
	RemoveWins   Reason = "remove_wins"  // a delete that does not know what it removed
	Expired      Reason = "expired"      // the tombstone is older than Policy.ForgetAfter
	Incomplete   Reason = "incomplete"   // the image lacks values that only the origin has
	Unsure       Reason = "unsure"       // an own change: a later one may have written, or removed, the row
)

// Decision is what Resolve found.
type Decision struct {
	Verdict Verdict
	Type    Type // None: nothing to record
	Reason  Reason
	// Pushback: another region has an entry that loses here; publish this region's entry,
	// as it is after the decision, as a Repair event. With Keep that is the local entry;
	// with Apply (Self events only) it is the event.
	Pushback bool
	// Forget: drop the tombstone of the key when applying. Only with Apply.
	Forget bool
}

// Conflict reports whether the decision belongs into the audit log.
func (d Decision) Conflict() bool { return d.Type != None }

// Winner returns the regions that won and lost, given the names of the region whose entry
// was found here and of the event's origin. Both are empty for Park and Same.
func (d Decision) Winner(local, remote string) (winner, loser string) {
	switch d.Verdict {
	case Apply:
		return remote, local
	case Keep:
		return local, remote
	}
	return "", ""
}
