package conflict

import (
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// tangleBytes bounds what a Tangle holds. What is above it goes out as it came: mostly the rows of a large load, under
// keys that were free. Where another row turns out to have stood under such a key, a peer, and this region's
// own self-merge, would take the new row for that one: so the transaction is not published (TangledError).
const tangleBytes = 64 << 20

// TangledError says that one transaction moves more rows between the keys of a table with a deferrable
// key than can be put in order. Nothing of it is committed anywhere.
type TangledError struct{ Relation wal.RelationName }

func (e *TangledError) Error() string {
	return fmt.Sprintf("one transaction puts more than %d MiB of rows of %s under keys that other rows leave only later, which its deferrable key allows; they cannot be put in order", tangleBytes>>20, e.Relation)
}

// Hint says how to get behind the transaction.
func (e *TangledError) Hint() string {
	return "drop the slot and run: pgwaltz resync --config FILE --recreate-slot; let the application move fewer rows at once, or make the key not deferrable"
}

// Tangle is Untangle for a transaction that comes in parts: a row may be put under its key in one part, and the
// row that was there before may leave in a later one. So the insert of a row under a deferrable key is
// held until the row before it has gone, or the transaction ends. The zero value is that of a new
// transaction.
//
// Whether a key is deferrable is known of the present only. One that is not may have been so when the transaction was made, or
// may have been dropped and made again within it. So it is looked whether two rows have stood under one key of any other table (find):
// then its rows are put in order as well; in a transaction in parts, from the part on in which that shows. It shows by the old image of a
// row that leaves a key, or is changed there: it is not that of the row which was put there. Nothing shows where each looks like the other.
type Tangle struct {
	put     map[wal.RelationName]bool // tables into which rows were put
	crowded map[wal.RelationName]bool // tables whose keys are not deferrable, and held two rows
	held    map[string]*crowd         // by relation and key
	order   []*putRow                 // what is held; rows that have left or gone out since are marked
	count   int                       // of held rows
	size    int
	limit   int // of size; 0: tangleBytes
	gone    *letGo
	further bool // a part was taken
}

// Holds reports whether inserts are held.
func (t *Tangle) Holds() bool { return t.count > 0 }

// orders reports whether the rows of a table are put in order.
func (t *Tangle) orders(rel *wal.Relation) bool {
	return rel.Deferrable || t.crowded != nil && t.crowded[rel.Ref()]
}

// find looks for tables in which two rows stand under one key. Wherever that was so, a row has been deleted, or has left its
// key, behind one that was put in.
func (t *Tangle) find(changes []wal.Change, whole bool) {
	put, left := false, false
	for i := range changes {
		put = put || changes[i].Op == wal.Insert
		left = left || put && changes[i].Op == wal.Delete
	}
	if whole && !left {
		return
	}
	var last *wal.Relation
	var suspect map[wal.RelationName]bool
	for i := range changes {
		ch := &changes[i]
		switch {
		case ch.Relation.Deferrable || ch.Relation.Identity != wal.IdentityFull || ch.Relation.PrimaryKey == nil:
		case ch.Op == wal.Insert && ch.Relation != last:
			if t.put == nil {
				t.put = map[wal.RelationName]bool{}
			}
			last, t.put[ch.Relation.Ref()] = ch.Relation, true
		case ch.Op == wal.Delete && ch.OldFull && t.put[ch.Relation.Ref()] && !t.crowded[ch.Relation.Ref()]:
			if suspect == nil {
				suspect = map[wal.RelationName]bool{}
			}
			suspect[ch.Relation.Ref()] = true
		}
	}
	if suspect == nil {
		return
	}
	_, found := untangle(changes, func(rel *wal.Relation) bool { return suspect[rel.Ref()] })
	for _, name := range found {
		if t.crowded == nil {
			t.crowded = map[wal.RelationName]bool{}
		}
		t.crowded[name] = true
	}
}

// Take takes the changes of the next part and returns what is to go out with it. more is false for the
// last part: then nothing is left. Errors: *TangledError.
func (t *Tangle) Take(changes []wal.Change, more bool) ([]wal.Change, error) {
	whole := !more && !t.further
	t.further = true
	t.find(changes, whole)
	if whole {
		out, _ := untangle(changes, t.orders)
		return out, nil
	}
	if !t.Holds() && t.gone == nil && !slices.ContainsFunc(changes, func(c wal.Change) bool { return t.orders(c.Relation) }) {
		return changes, nil
	}
	out := make([]wal.Change, 0, len(changes)+t.count)
	for i := range changes {
		ch := &changes[i]
		if ch.Op == wal.Truncate || !t.orders(ch.Relation) || ch.Relation.KeyColumns() == nil {
			if ch.Op == wal.Truncate {
				out = t.truncated(out, ch.Relation)
			}
			out = append(out, *ch)
			continue
		}
		key := rowName(ch)
		if ch.Op == wal.Insert {
			t.hold(key, ch)
			continue
		}
		var r *putRow
		c := t.held[key]
		if c != nil {
			r = c.meant(ch)
		}
		switch {
		case r == nil: // the row that was there before
			if t.gone != nil && !t.gone.follows(key, ch) {
				return nil, &TangledError{ch.Relation.Ref()}
			}
			out = append(out, *ch)
			if ch.Op == wal.Delete && c != nil {
				first := c.first()
				out = append(out, first.change)
				if t.gone != nil { // the row that was there before may be under the key still, beside what was let go
					t.gone.add(key, &first.change)
				}
				t.let(key, first)
			}
		case ch.Op == wal.Delete:
			t.let(key, r)
		default:
			t.size -= r.change.Size()
			r.change.Relation, r.change.New = ch.Relation, ch.New.Filled(r.change.New)
			t.size += r.change.Size()
			c.changed(r, ch.Relation, r.change.New)
		}
	}
	if more && t.size <= t.most() {
		return out, nil
	}
	gone := t.gone
	if more && gone == nil {
		gone = &letGo{rows: map[[16]byte][16]byte{}}
	}
	for _, r := range t.order {
		if r.gone {
			continue
		}
		out = append(out, r.change)
		if more {
			gone.add(rowName(&r.change), &r.change)
		}
	}
	*t = Tangle{limit: t.limit, put: t.put, crowded: t.crowded, further: more}
	if more {
		t.gone = gone
	}
	return out, nil
}

func (t *Tangle) most() int {
	if t.limit > 0 {
		return t.limit
	}
	return tangleBytes
}

func (t *Tangle) hold(key string, ch *wal.Change) {
	if t.held == nil {
		t.held = map[string]*crowd{}
	}
	c := t.held[key]
	if c == nil {
		c = &crowd{}
		t.held[key] = c
	}
	r := &putRow{rel: ch.Relation, change: *ch, image: ch.New}
	c.put(r)
	t.order = append(t.order, r)
	t.count++
	t.size += ch.Size() + len(key)
	if len(t.order) > 1024 && len(t.order) > 2*t.count {
		t.order = slices.DeleteFunc(t.order, func(r *putRow) bool { return r.gone })
	}
}

// truncated appends what is held of a table that is truncated now: it came before.
func (t *Tangle) truncated(out []wal.Change, rel *wal.Relation) []wal.Change {
	for _, r := range t.order {
		if !r.gone && r.change.Relation.Ref() == rel.Ref() {
			out = append(out, r.change)
			t.let(rowName(&r.change), r)
		}
	}
	if t.gone != nil {
		t.gone.truncated(rel)
	}
	return out
}

func (t *Tangle) let(key string, r *putRow) {
	c := t.held[key]
	c.leave(r)
	t.count--
	t.size -= r.change.Size() + len(key)
	r.change, r.image = wal.Change{}, nil
	if c.left == 0 {
		delete(t.held, key)
	}
}
