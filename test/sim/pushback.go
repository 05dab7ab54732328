package sim

import (
	"slices"

	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// repair is the entry that a region holds of a key, to be told to those that have a lower one.
// It goes into the transaction that refused the other entry, as a logical message, and so
// stands in the WAL behind every write that it may rest on.
func (t *dbtx) repair(k rowKey) *wal.Change {
	tab := t.d.tables[k.table]
	e := t.get(k)
	l := t.d.side(k, e)
	if !l.Known {
		return nil
	}
	c := wal.Change{Op: wal.Update, Relation: tab.rel, New: e.row, Stamp: l.Stamp, Repair: true}
	if !l.Alive {
		c.Op, c.New = wal.Delete, nil
		c.Old = tab.keyRow(k)
	}
	t.d.w.Stats.Pushbacks++
	t.repairs = append(t.repairs, c)
	return &t.repairs[len(t.repairs)-1]
}

// tell is the content of the logical messages of a transaction.
func (l *walTx) tell() [][]byte {
	if len(l.repairs)+len(l.notices) == 0 {
		return nil
	}
	data, err := wire.EncodeTransaction(&wal.Transaction{Changes: l.repairs, Notices: l.notices})
	if err != nil {
		panic(err)
	}
	return slices.Collect(decoder.SplitTell([]byte("token"), data))
}

// stamp gives the changes their stamps, and holds them against the first decoding.
func (o *outbound) stamp(tx *wal.Transaction) {
	if bad := o.stamps.stamp(tx, true); bad != "" {
		o.s.w.fail("%s", bad)
	}
}
