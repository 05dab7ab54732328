package conflict

import (
	"maps"
	"slices"
	"strconv"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Untangle puts the changes of a transaction into an order in which no key has two rows, where
// the key is deferrable: a transaction that swaps the keys of two rows holds both rows under
// one key for a while. A delete or update that does not mean the row which the transaction
// has put under its key, but the one before it, goes in front of that row's insert. It is told
// by the old image, which such tables have whole. Changes of keys are split already
// (SplitKeyChange). Of a transaction in parts it sees one part: Tangle is for these.
//
// It may put several rows there, all of them for a moment, before each gets its own key: each change is of the one that
// looks so.
//
// Two rows under one key may be equal, and then nobody can tell which of them a delete means. So the insert and
// the delete are both left out: if it was the new row, the key is as empty as before; if it was the one before, an equal one
// stands there. A row that is put under a key and is gone again within the transaction is nothing to others in any case.
func Untangle(changes []wal.Change) []wal.Change {
	out, _ := untangle(changes, deferrable)
	return out
}

func deferrable(rel *wal.Relation) bool { return rel.Deferrable }

// untangle is Untangle for the tables that some names. It also returns those in which two rows stood under one key for certain.
func untangle(changes []wal.Change, some func(*wal.Relation) bool) (_ []wal.Change, crowded []wal.RelationName) {
	if !slices.ContainsFunc(changes, func(c wal.Change) bool { return some(c.Relation) }) {
		return changes, nil
	}
	put := map[string]*crowd{}
	out := make([]*step, 0, len(changes))
	found := func(rel *wal.Relation) {
		if name := rel.Ref(); !slices.Contains(crowded, name) {
			crowded = append(crowded, name)
		}
	}
	for i := range changes {
		s := &step{change: &changes[i]}
		ch := s.change
		if ch.Op == wal.Truncate || !some(ch.Relation) || ch.Relation.KeyColumns() == nil {
			if ch.Op == wal.Truncate { // what was put there is gone
				maps.DeleteFunc(put, func(_ string, c *crowd) bool { return c.rel == ch.Relation.Ref() })
			}
			out = append(out, s)
			continue
		}
		key := rowName(ch)
		c := put[key]
		if ch.Op == wal.Insert {
			if c == nil {
				c = &crowd{rel: ch.Relation.Ref()}
				put[key] = c
			}
			if c.left > 0 {
				found(ch.Relation)
			}
			s.row = &putRow{rel: ch.Relation, image: ch.New, steps: []*step{s}}
			c.put(s.row)
			out = append(out, s)
			continue
		}
		if c == nil || c.left == 0 {
			out = append(out, s)
			continue
		}
		switch r := c.meant(ch); {
		case r == nil:
			first := c.first()
			first.front = append(first.front, s)
			found(ch.Relation)
		case ch.Op == wal.Delete:
			for _, one := range r.steps {
				one.void = true
			}
			c.leave(r)
		default:
			r.steps = append(r.steps, s)
			now := ch.New
			if ch.OldFull { // a large value that is left alone is in the old image
				now = now.Filled(ch.Old)
			}
			c.changed(r, ch.Relation, now)
			out = append(out, s)
		}
	}
	left := make([]wal.Change, 0, len(changes))
	for _, s := range out {
		if s.row != nil {
			for _, one := range s.row.front {
				left = append(left, *one.change)
			}
		}
		if !s.void {
			left = append(left, *s.change)
		}
	}
	return left, crowded
}

// step is one change of a transaction that is put in order.
type step struct {
	change *wal.Change
	row    *putRow // that it inserts
	void   bool
}

// rowName names the row that a change leaves behind, or deletes. A table that was dropped and made again is another one.
func rowName(ch *wal.Change) string {
	return ch.Relation.String() + "\x00" + strconv.FormatUint(uint64(ch.Relation.OID), 36) + "\x00" + string(ch.AppendKey(nil))
}
