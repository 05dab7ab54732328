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
type Tangle struct {
	held  map[string]*wal.Change // inserts, by relation and key
	order []string               // of their keys; those that have gone since are not in held
	size  int
	limit int // of size; 0: tangleBytes
	gone  *letGo
}

// Holds reports whether inserts are held.
func (t *Tangle) Holds() bool { return len(t.held) > 0 }

// Take takes the changes of the next part and returns what is to go out with it. more is false for the
// last part: then nothing is left. Errors: *TangledError.
func (t *Tangle) Take(changes []wal.Change, more bool) ([]wal.Change, error) {
	if !t.Holds() && t.gone == nil && (!more || !slices.ContainsFunc(changes, func(c wal.Change) bool { return c.Relation.Deferrable })) {
		return Untangle(changes), nil
	}
	out := make([]wal.Change, 0, len(changes)+len(t.held))
	for i := range changes {
		ch := &changes[i]
		if !ch.Relation.Deferrable || ch.Op == wal.Truncate || ch.Relation.KeyColumns() == nil {
			out = append(out, *ch)
			continue
		}
		key := ch.Relation.String() + "\x00" + string(ch.AppendKey(nil))
		put := t.held[key]
		switch {
		case ch.Op == wal.Insert:
			if put != nil {
				out = append(out, *put)
				t.let(key)
			}
			t.hold(key, ch)
		case put == nil:
			if t.gone != nil && !t.gone.follows(key, ch) {
				return nil, &TangledError{ch.Relation.Ref()}
			}
			out = append(out, *ch)
		case ch.OldFull && !sameContent(ch.Relation, ch.Old, put.New): // the row that was there before
			out = append(out, *ch)
			if ch.Op == wal.Delete {
				out = append(out, *put)
				t.let(key)
			}
		case ch.Op == wal.Delete: // the new one again
			t.let(key)
		default:
			put.New = ch.New.Filled(put.New)
		}
	}
	if more && t.size <= t.most() {
		return out, nil
	}
	gone := t.gone
	if more && gone == nil {
		gone = &letGo{rows: map[[16]byte][16]byte{}}
	}
	for _, key := range t.order {
		if put := t.held[key]; put != nil {
			out = append(out, *put)
			if more {
				gone.add(key, put)
			}
			delete(t.held, key)
		}
	}
	*t = Tangle{limit: t.limit}
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
		t.held = map[string]*wal.Change{}
	}
	one := *ch
	t.held[key] = &one
	t.order = append(t.order, key)
	t.size += ch.Size() + len(key)
	if len(t.order) > 1024 && len(t.order) > 2*len(t.held) {
		t.order = slices.DeleteFunc(t.order, func(k string) bool { return t.held[k] == nil })
	}
}

func (t *Tangle) let(key string) {
	t.size -= t.held[key].Size() + len(key)
	delete(t.held, key)
}
