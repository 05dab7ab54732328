package conflict

import (
	"bytes"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Resolve decides between a remote event and the local entry of its key. Whether the event
// is applied depends on nothing but the order of the two entries (Policy.CompareSides), so
// arrival order and redelivery do not matter; everything else here says only what to call
// it. The exceptions are an image that is not complete (Park) and Policy.ForgetAfter.
//
// The local entry must have been read under a lock that is held until the decision is
// carried out, in one transaction.
func Resolve(p Policy, remote Event, local Side) Decision {
	var d Decision
	if remote.Op == wal.Delete {
		d = resolveDelete(p, &remote, &local)
	} else {
		d = resolveUpsert(p, &remote, &local)
	}
	switch remote.Kind {
	case Repair:
		// A repair that loses by its content alone met an image that no event carries (a
		// column taken over from an older row, say); its sender has to hear of it, and the
		// contents rise each time, so that this ends as well.
		d.Pushback = d.Pushback && d.Reason == ByContent
		if d.Verdict == Keep {
			d.Type = None
		}
	case Self:
		// What an own change undoes here may stand at its origin, which was not told that
		// it lost, because it did not lose when it came in.
		d.Pushback = d.Verdict == Apply && d.Conflict()
		if d.Verdict == Keep {
			d.Type = None
		}
	}
	return d
}

func resolveUpsert(p Policy, e *Event, l *Side) Decision {
	switch {
	case !l.Known:
		return upsertMissing(e)
	case !l.Alive:
		return upsertDead(p, e, l)
	}
	return upsertLive(p, e, l)
}

func upsertLive(p Policy, e *Event, l *Side) Decision {
	guessed := e.Filled && e.Kind != Self && !bytes.Equal(e.Content, l.Content)
	if (guessed || !e.Complete && e.Content == nil) && p.Compare(e.Stamp, l.Stamp) == 0 {
		// The contents would decide, and the origin has them alone: a value that it read back may
		// be that of a row which has beaten this one there.
		return e.wanting()
	}
	c := p.CompareSides(e.Side(), *l)
	if c == 0 {
		return Decision{Verdict: Same, Reason: Identical}
	}
	d := Decision{Verdict: Apply, Reason: p.decidedBy(e.Stamp, l.Stamp)}
	if c < 0 {
		d.Verdict, d.Pushback = Keep, true
	}
	switch {
	case e.Content != nil && bytes.Equal(e.Content, l.Content):
		// Only the generation differs. Nobody loses anything, but the regions have to
		// agree on it.
		d.Reason = Identical
		return d
	case c > 0 && e.overwrote(l):
		d.Reason = FastForward
		return d
	case c > 0 && !e.Complete:
		// What the origin left out cannot be taken from a row that it never saw.
		return e.wanting()
	case c > 0 && e.presumablyOverwrote(l):
		d.Reason = FastForward
		return d
	case e.born() || e.Kind == Copy:
		d.Type = InsertExists
	default:
		d.Type = UpdateOriginDiffers
	}
	return d
}

// wanting is the decision on an event that would be applied if it were complete. Whether it is a
// conflict is known when the rest is here: the row may be what it overwrote, with a value that
// a later change of the origin has set.
func (e *Event) wanting() Decision {
	if e.Kind == Self {
		return Decision{Verdict: Keep, Reason: Incomplete}
	}
	return Decision{Verdict: Park, Reason: Incomplete}
}

func upsertDead(p Policy, e *Event, l *Side) Decision {
	if p.CompareSides(e.Side(), *l) > 0 {
		d := Decision{Verdict: Apply, Type: UpdateDeleted, Reason: p.decidedBy(e.Stamp, l.Stamp)}
		if e.born() && e.Stamp.Generation > l.Stamp.Generation {
			d.Type = None
		}
		return e.needsWhole(d, None)
	}
	if e.born() && p.expired(e.written(), l.DeletedAt) {
		return e.needsWhole(Decision{Verdict: Apply, Reason: Expired, Forget: true}, None)
	}
	d := Decision{Verdict: Keep, Type: UpdateDeleted, Reason: p.decidedBy(e.Stamp, l.Stamp), Pushback: true}
	if e.Kind == Copy {
		d.Type = None
	}
	return d
}

func upsertMissing(e *Event) Decision {
	d := Decision{Verdict: Apply, Reason: Missing}
	if !e.born() && e.Kind == Live {
		d.Type = UpdateMissing
	}
	return e.needsWhole(d, UpdateMissing)
}

// needsWhole turns Apply into Park where there is no row to take unchanged values from.
func (e *Event) needsWhole(d Decision, t Type) Decision {
	if e.Complete {
		return d
	}
	if e.Kind == Self {
		// The row was deleted here after this change, and its delete follows in our WAL; or something
		// lower took it away, and the caller asks the other regions.
		return Decision{Verdict: Keep, Reason: Incomplete}
	}
	return Decision{Verdict: Park, Type: t, Reason: Incomplete}
}

func resolveDelete(p Policy, e *Event, l *Side) Decision {
	if !l.Known {
		d := Decision{Verdict: Apply, Reason: Missing}
		if !e.born() && e.Kind == Live {
			d.Type = DeleteMissing
		}
		return d
	}
	c := p.CompareSides(e.Side(), *l)
	d := Decision{Verdict: Apply, Reason: p.decidedBy(e.Stamp, l.Stamp)}
	if c < 0 {
		d.Verdict = Keep
	}
	if !l.Alive {
		if c == 0 {
			return Decision{Verdict: Same, Reason: Tombstone}
		}
		// Both are dead: the tombstone takes the higher stamp everywhere. Nobody needs to
		// be told, because the higher delete travels to everyone by itself.
		if c < 0 && e.Born && e.Kind == Live && p.expired(e.CommitTime, l.DeletedAt) {
			return Decision{Verdict: Apply, Reason: Expired, Forget: true}
		}
		reborn := e.born() && e.Stamp.Generation > l.Stamp.Generation
		if e.Kind == Live && !reborn {
			d.Type = DeleteMissing
		}
		return d
	}
	d.Pushback = c < 0
	switch {
	case e.Kind == Copy && p.expired(l.Stamp.UpdatedAt, e.Stamp.UpdatedAt):
		return Decision{Verdict: Keep, Reason: Expired}
	case e.Kind == Copy && c < 0: // the row came later
	case c > 0 && e.overwrote(l):
		d.Reason = FastForward
	case c > 0 && !e.Base.Known && !e.Born && e.Kind == Live:
		d.Reason = RemoveWins
		if l.Stamp.UpdatedAt > e.CommitTime {
			d.Type = DeleteOriginDiffers
		}
	default:
		d.Type = DeleteOriginDiffers
	}
	return d
}

// Overwrote reports whether l is the row that the event, a change, is known to have overwritten at its origin.
func (e *Event) Overwrote(l Side) bool { return l.Alive && e.overwrote(&l) }

// overwrote reports that the local row is the one that the event overwrote at its origin.
func (e *Event) overwrote(l *Side) bool {
	switch {
	case !e.Base.Known:
		return false
	case e.Base.HasDigest: // a row that is here is whole
		return l.Content != nil && Digest(l.Content) == e.Base.Digest
	}
	return e.Base.Stamp == l.Stamp
}

// presumablyOverwrote is for updates that do not know what they overwrote: where versions
// count edits, a row of the same generation with the same or a higher version cannot be it;
// otherwise nothing proves a conflict. What begins a later generation has removed a row first; a
// row that was written after that is another one, as it is for a delete.
func (e *Event) presumablyOverwrote(l *Side) bool {
	if e.Base.Known || e.born() || e.Kind != Live {
		return false
	}
	if e.Stamp.Generation > l.Stamp.Generation {
		return l.Stamp.UpdatedAt <= e.CommitTime
	}
	return e.Stamp.Version == wal.NullVersion || l.Stamp.Version == wal.NullVersion || l.Stamp.Version < e.Stamp.Version
}

// written is when the row of an event was written, as far as it is known; of repairs and own
// changes it does not count.
func (e *Event) written() wal.Micros {
	switch e.Kind {
	case Live:
		return e.CommitTime
	case Copy: // its commit is the reading of the row
		return e.Stamp.UpdatedAt
	}
	return wal.MinMicros
}

// expired reports that the deletion is so long ago that the key counts as new.
func (p Policy) expired(commit, deleted wal.Micros) bool {
	return p.ForgetAfter > 0 && deleted != 0 && deleted != wal.MinMicros && commit > addMicros(deleted, p.ForgetAfter)
}
