package sim

import (
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// answer is the entry that beat a remote change, on its way to the region that lost. It is
// written in the transaction that refused the change and stays until every peer has it.
type answer struct {
	key         rowKey
	incarnation uint32 // of the frame that carried it last
	number      uint64
}

// part names what the decoder gives out at once.
type part struct {
	commit wal.LSN
	part   uint32
}

func (d *database) drop(b *answer) {
	if i := slices.Index(d.back, b); i >= 0 {
		d.back = slices.Delete(d.back, i, i+1)
	}
}

// entryOf is what the region holds of a key now, as an event; nil when it holds nothing. An
// entry is read when it is sent: an older one may have been overwritten here by a write that
// did not raise its stamp, and nobody would take it back.
func (d *database) entryOf(k rowKey) *wal.Transaction {
	e, t := d.keys[k], d.tables[k.table]
	l := d.side(k, e)
	if !l.Known {
		return nil
	}
	c := wal.Change{Op: wal.Update, Relation: t.rel, New: e.row, Stamp: l.Stamp}
	if !l.Alive {
		c.Op, c.New = wal.Delete, nil
		c.Old = make(wal.Tuple, len(t.rel.Columns))
		for i := range c.Old {
			c.Old[i].Kind = wal.Null
		}
		c.Old[colKey] = text(k.key[2 : len(k.key)-2])
	}
	return &wal.Transaction{CommitTime: d.now(), CommitLSN: 1, EndLSN: 2, Changes: []wal.Change{c}}
}

// pushback hands answers to the outbound pipe, if there is one.
func (s *sidecar) pushback(back []*answer) {
	if s.out == nil {
		return
	}
	for _, b := range back {
		s.w.Stats.Pushbacks++
		s.out.waiting = append(s.out.waiting, b)
	}
	s.out.wake()
}

// answered forgets what every peer has applied.
func (s *sidecar) answered() {
	d := s.r.db
	for _, b := range slices.Clone(d.back) {
		all := b.incarnation != 0
		for _, r := range s.w.regions {
			// Numbers are given out again after the stream lost its end: the chain tells.
			if a := s.acks[r.id]; r.id != s.r.id && (s.sent[[2]uint64{uint64(a.inc), a.number}] != a.chain || a.inc < b.incarnation || a.inc == b.incarnation && a.number < b.number) {
				all = false
			}
		}
		if all {
			d.drop(b)
		}
	}
}

// stamp gives the changes their stamps. Unless the oracle of the second decoding is on, a
// change that was stamped before is given what it had.
func (o *outbound) stamp(tx *wal.Transaction) {
	d, w := o.s.r.db, o.s.w
	if w.cfg.Strict {
		if bad := o.stamps.stamp(tx, true); bad != "" {
			w.fail("%s", bad)
		}
		return
	}
	p := part{tx.CommitLSN, tx.Part}
	if known, ok := d.stamps[p]; ok && w.cfg.Break != Restamp {
		tx.Changes = known
		for i := range known {
			c := &known[i]
			if g := conflict.GraveUnder(c.Stamp, c.Op != wal.Delete); g.Present {
				k := o.s.keyOf(c)
				if was, ok := o.s.index.Get(c.Relation.Ref(), []byte(k.key)); !ok || was.Generation < g.Generation {
					o.s.index.Put(c.Relation.Ref(), []byte(k.key), graveAt(g.Generation, tx.CommitLSN))
				}
			}
		}
		return
	}
	w.must(o.stamps.stamper.Stamp(tx))
	d.stamps[p] = tx.Changes
}
