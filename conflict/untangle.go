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
func Untangle(changes []wal.Change) []wal.Change {
	if !slices.ContainsFunc(changes, func(c wal.Change) bool { return c.Relation.Deferrable }) {
		return changes
	}
	type row struct {
		at    int // of its insert in out
		image wal.Tuple
	}
	put := map[string]*row{}
	out := make([]wal.Change, 0, len(changes))
	for i := range changes {
		ch := &changes[i]
		if !ch.Relation.Deferrable || ch.Op == wal.Truncate || ch.Relation.KeyColumns() == nil {
			out = append(out, *ch)
			continue
		}
		key := ch.Relation.String() + "\x00" + string(ch.AppendKey(nil))
		r := put[key]
		switch {
		case ch.Op == wal.Insert:
			put[key] = &row{at: len(out), image: ch.New}
		case r == nil:
		case ch.OldFull && !sameContent(ch.Relation, ch.Old, r.image):
			at := r.at
			out = slices.Insert(out, at, *ch)
			for _, other := range put {
				if other.at >= at {
					other.at++
				}
			}
			continue
		case ch.Op == wal.Delete:
			delete(put, key)
		default:
			r.image = ch.New
		}
		out = append(out, *ch)
	}
	return out
}

func sameContent(rel *wal.Relation, a, b wal.Tuple) bool {
	x, xok := Content(rel, a)
	y, yok := Content(rel, b)
	return xok && yok && bytes.Equal(x, y)
}
