package conflict

import "github.com/pgwaltz/pgwaltz/wal"

// Outlives reports whether a stamped change, committed at a time by its origin's clock, would be
// applied where a tombstone stands. Whoever finds the tombstone in place of the change's row knows
// then that no delete of that row follows: something lower was written over it before the change was
// known.
func (p Policy) Outlives(ch *wal.Change, commit wal.Micros, dead Side) bool {
	if ch.Op == wal.Delete || !dead.Known || dead.Alive {
		return false
	}
	e := Event{Kind: Live, Op: ch.Op, Stamp: ch.Stamp, Base: ch.Base, Born: ch.Op == wal.Insert, Complete: true, CommitTime: commit}
	return Resolve(p, e, dead).Verdict == Apply
}
