package parked

import (
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Change is one parked change.
type Change struct {
	ID      int64
	Origin  string
	Table   uint32 // the OID of the table here when the change was parked; 0 where it was not here
	Key     string // key text, or what Keyless makes
	Kind    conflict.EventKind
	Waiting conflict.Waiting
	// Transaction is the one that the change belongs to, with this change alone.
	Transaction *wal.Transaction
	Row         []byte // JSON for people; nil for none
	State       string // SQLSTATE
	Message     string
	Attempts    int
	// Came is the relation as it came; its table may have another name by now (Waiting).
	Came *wal.Relation
	// Definition names the table's definition under which the change must not be tried again; ""
	// for none.
	Definition string
	// Denied are the peers that do not hold what an own change lacks.
	Denied []string
}

// Keyless names a change of a table without a key: the transaction's commit, its part and
// the change's place in it.
func Keyless(tx *wal.Transaction, place int) string {
	return fmt.Sprintf("@%s/%d/%d", tx.CommitLSN, tx.Part, place)
}

// IsKeyless reports whether a key was made by Keyless.
func IsKeyless(key string) bool { return len(key) > 0 && key[0] == '@' }

// Unread reports whether a value of the change may be none of its type here because that has other labels, or attributes, than it had at the
// origin when the change was made: types that users define are told by their names alone.
func (c *Change) Unread() bool {
	return c.State == "22P02" && c.Waiting.Op != wal.Delete && slices.ContainsFunc(c.Waiting.Relation.Columns, func(col wal.Column) bool { return col.Type != "" })
}

// encode makes the event that keeps the change whole.
func (c *Change) encode() ([]byte, error) {
	w := &c.Waiting
	ch := wal.Change{Op: w.Op, Relation: w.Relation, Stamp: w.Stamp, Base: w.Base}
	switch {
	case c.Transaction != nil && len(c.Transaction.Changes) == 1 && IsKeyless(c.Key):
		ch = c.Transaction.Changes[0]
	case w.Op == wal.Delete:
		ch.Old, ch.OldFull = w.Image, w.Full
	default:
		ch.New = w.Image
		if w.Born {
			ch.Op = wal.Insert // the net effect of an insert and what followed
		}
	}
	tx := c.Transaction
	one := wal.Transaction{XID: tx.XID, Origin: tx.Origin, CommitLSN: tx.CommitLSN, EndLSN: tx.EndLSN, CommitTime: tx.CommitTime, Changes: []wal.Change{ch}}
	if one.EndLSN == 0 {
		one.EndLSN = tx.CommitLSN + 1 // a part of a giant transaction: its end is not known yet
	}
	return wire.EncodeTransaction(&one)
}

// decode reads what encode wrote.
func (c *Change) decode(event []byte, born bool) error {
	tx, ch, err := wire.ParseChange(event)
	if err != nil {
		return fmt.Errorf("read parked change %d: %w", c.ID, err)
	}
	c.Transaction, c.Came = tx, ch.Relation
	c.Waiting = conflict.Waiting{Relation: ch.Relation, Op: ch.Op, Born: born, Base: ch.Base, Stamp: ch.Stamp, Image: ch.New}
	if ch.Op == wal.Delete {
		c.Waiting.Image, c.Waiting.Full = ch.Old, ch.OldFull
		tx.Changes[0].Brief = born
	}
	return nil
}

// rename gives the change the name that its table has by now (Follow).
func (c *Change) rename(name wal.RelationName) {
	if c.Waiting.Relation.Ref() == name {
		return
	}
	rel := *c.Waiting.Relation
	rel.Schema, rel.Name = name.Schema, name.Name
	c.Waiting.Relation = &rel
	for i := range c.Transaction.Changes {
		c.Transaction.Changes[i].Relation = &rel
	}
}

func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}
