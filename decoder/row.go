package decoder

import (
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

const (
	// What wal.Change.Size and wal.Transaction.Size count beside the payload.
	changeOverhead  = 96
	valueOverhead   = 32
	messageOverhead = 64

	// Marks before the tuples of a row message.
	newTuple = 'N'
	keyTuple = 'K'
	oldTuple = 'O'
)

// onRow adds an insert, update or delete. It is the hot path and parses in place: the tuples of
// the message are copied once, and the values are cut out of the copy.
func (d *Decoder) onRow(op wal.Op, body []byte) error {
	if !d.tx.open {
		return outOfOrder("no transaction is open")
	}
	rel, body, err := d.relation(body)
	if err != nil {
		return err
	}
	if d.tx.suppressed {
		return nil
	}
	body = d.slab.keep(body)
	c := wal.Change{Op: op, Relation: rel}
	mark, body, err := tupleMark(body)
	if err != nil {
		return err
	}
	if op != wal.Insert && (mark == keyTuple || mark == oldTuple) {
		c.OldFull = mark == oldTuple
		if c.Old, body, err = d.tuple(rel, body); err != nil {
			return err
		}
		if op == wal.Update {
			if mark, body, err = tupleMark(body); err != nil {
				return err
			}
		}
	}
	switch {
	case op == wal.Delete:
		if c.Old == nil {
			return malformed("a delete has tuple mark %q, want K or O", mark)
		}
	case mark != newTuple:
		return malformed("tuple mark %q, want N", mark)
	default:
		if c.New, body, err = d.tuple(rel, body); err != nil {
			return err
		}
	}
	if len(body) > 0 {
		return malformed("%d bytes behind the last tuple", len(body))
	}
	if c.OldFull && keyAlone(rel, c.Old) {
		c.OldFull = false
	}
	if nameless(&c) {
		if d.cfg.OnNameless != nil {
			d.cfg.OnNameless(rel, op)
		}
		if op == wal.Delete || rel.PrimaryKey == nil {
			return nil
		}
		c.Old = nil
	}
	if c.Old != nil && c.New != nil {
		fill(&c)
	}
	d.tx.size += c.Size()
	d.slab.add(c)
	return nil
}

func tupleMark(b []byte) (byte, []byte, error) {
	if len(b) == 0 {
		return 0, nil, malformed("it ends before a tuple")
	}
	return b[0], b[1:], nil
}

// keyAlone reports whether an image that is called full holds the key of its partition alone. The server
// calls it what the identity of the whole table says, and fills in NULLs. A deferrable key is never an identity by itself: what is called
// full under one has all values, though they be NULL.
func keyAlone(rel *wal.Relation, old wal.Tuple) bool {
	if !rel.Partitioned {
		return false
	}
	null := func(i int) bool { return i < len(old) && old[i].Kind == wal.Null }
	if slices.ContainsFunc(rel.NotNull, null) {
		return true
	}
	if rel.Deferrable {
		return false
	}
	others := 0
	for i := range rel.Sent() {
		if slices.Contains(rel.PrimaryKey, i) {
			continue
		}
		if others++; !null(i) {
			return false
		}
	}
	return others > 0
}

// nameless reports whether a change does not say which row it is of. An old image lacks the key, whose
// columns are never NULL; or an update of a table without a key has no old image, because its partition
// has a key.
func nameless(c *wal.Change) bool {
	if c.Op == wal.Update && c.Old == nil {
		return c.Relation.PrimaryKey == nil && c.Relation.Identity == wal.IdentityFull
	}
	return c.Old != nil && slices.ContainsFunc(c.Relation.PrimaryKey, func(i int) bool { return i < c.Relation.Sent() && c.Old[i].Kind == wal.Null })
}

// fill gives the unchanged values of the new image their value, where the old image has it.
// Outside of the key, a key-only image holds NULLs that stand for nothing: they are not taken. What the
// relation says is its key may be more than the image has, if that is a partition's.
func fill(c *wal.Change) {
	for i := range c.New {
		if c.New[i].Kind == wal.Unchanged && (c.OldFull || c.Relation.Columns[i].Key && c.Old[i].Kind != wal.Null) {
			c.New[i] = c.Old[i]
		}
	}
}

// onTruncate adds one change for each relation. The options (cascade, restart identity) are
// dropped: cascading has already named every relation it reached, and sequences are not replicated.
func (d *Decoder) onTruncate(body []byte) error {
	if !d.tx.open {
		return outOfOrder("no transaction is open")
	}
	if err := checkTruncate(body); err != nil {
		return err
	}
	var m pglogrepl.TruncateMessage
	if err := m.Decode(body); err != nil {
		return malformed("%v", err)
	}
	for _, oid := range m.RelationIDs {
		rel, err := d.relationByID(oid)
		if err != nil {
			return err
		}
		if d.tx.suppressed {
			continue
		}
		c := wal.Change{Op: wal.Truncate, Relation: rel}
		d.tx.size += c.Size()
		d.slab.add(c)
	}
	return nil
}
