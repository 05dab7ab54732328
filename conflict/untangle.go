package conflict

import (
	"bytes"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Untangle puts the changes of a transaction into an order in which no key has two rows, where
// the key is deferrable: a transaction that swaps the keys of two rows holds both rows under
// one key for a while. A delete or update that does not mean the row which the transaction
// has put under its key, but the one before it, goes in front of that row's insert. It is told
// by the old image, which such tables have whole. Changes of keys are split already
// (SplitKeyChange). Of a transaction in parts it sees one part: Tangle is for these.
//
// Two rows under one key may be equal, and then nobody can tell which of them a delete means. So the insert and
// the delete are both left out: if it was the new row, the key is as empty as before; if it was the one before, an equal one
// stands there. A row that is put under a key and is gone again within the transaction is nothing to others in any case.
func Untangle(changes []wal.Change) []wal.Change {
	if !slices.ContainsFunc(changes, func(c wal.Change) bool { return c.Relation.Deferrable }) {
		return changes
	}
	type step struct {
		wal.Change
		void bool
	}
	type row struct {
		at    int     // of its insert in out
		steps []*step // its insert, and what changed it since
		image wal.Tuple
	}
	put := map[string]*row{}
	out := make([]*step, 0, len(changes))
	voids := 0
	for i := range changes {
		s := &step{Change: changes[i]}
		ch := &s.Change
		if !ch.Relation.Deferrable || ch.Op == wal.Truncate || ch.Relation.KeyColumns() == nil {
			out = append(out, s)
			continue
		}
		key := ch.Relation.String() + "\x00" + string(ch.AppendKey(nil))
		r := put[key]
		switch {
		case ch.Op == wal.Insert:
			put[key] = &row{at: len(out), steps: []*step{s}, image: ch.New}
		case r == nil:
		case ch.OldFull && !sameContent(ch.Relation, ch.Old, r.image):
			at := r.at
			out = slices.Insert(out, at, s)
			for _, other := range put {
				if other.at >= at {
					other.at++
				}
			}
			continue
		case ch.Op == wal.Delete:
			delete(put, key)
			for _, one := range r.steps {
				one.void = true
				voids++
			}
			continue
		default:
			r.steps, r.image = append(r.steps, s), ch.New
		}
		out = append(out, s)
	}
	left := make([]wal.Change, 0, len(out)-voids)
	for _, s := range out {
		if !s.void {
			left = append(left, s.Change)
		}
	}
	return left
}

func sameContent(rel *wal.Relation, a, b wal.Tuple) bool {
	x, xok := Content(rel, a)
	y, yok := Content(rel, b)
	return xok && yok && bytes.Equal(x, y)
}
