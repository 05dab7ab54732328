package apply

import (
	"errors"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
)

// A giant transaction of another region puts rows where none is, and at its end one of them may meet an own
// change of its key that became known since. Then it begins again. The application may go on inserting and deleting
// such keys for ever, and faster than the giant transaction takes. So the keys are remembered, and from the
// third try on their changes are set aside, to be applied by themselves behind it.

// contest is what is remembered of a giant transaction that met own changes at its end.
type contest struct {
	undone int                 // how often it was
	keys   map[uint64]struct{} // hashes of the keys
}

const (
	// contestTries is how often a giant transaction begins again before it sets changes of such keys aside.
	contestTries = 2
	// maxContested is how many keys are remembered.
	maxContested = 1 << 16
)

// contested is why a change of such a key waits: another writer of its row is faster, always.
var contested = reason{"40001", "the application writes this key again and again while a giant transaction is applied; the change is applied behind that"}

// meet notes a key of which a giant transaction, if there is one, has met an own change.
func (a *Applier) meet(hash uint64, err error) {
	if !a.open || a.cfg.Self || !errors.Is(err, errBarrier) && !errors.Is(err, errRace) {
		return
	}
	c := &a.giant.contest
	if c.keys == nil {
		c.keys = map[uint64]struct{}{}
	}
	if len(c.keys) < maxContested {
		c.keys[hash] = struct{}{}
	}
}

// contests reports whether a change of the giant transaction in hand is to be set aside.
func (a *Applier) contests(g *batch.Group, r *batch.Run) bool {
	c := &a.giant.contest
	if !a.open || a.cfg.Self || c.undone < contestTries || len(c.keys) == 0 {
		return false
	}
	_, is := c.keys[a.cfg.Index.Hash(a.ledger(g.Rel), g.KeyText(r))]
	return is
}
