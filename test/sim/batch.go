package sim

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// run is the net effect of a batch on one key.
type run struct {
	key  rowKey
	kind conflict.EventKind
	ev   conflict.Event
	row  wal.Tuple // nil for deletes
	tx   *wal.Transaction
	skip bool // nothing to record
}

// needsMerge reports whether an own change has something to record at home.
func (s *sidecar) needsMerge(c *wal.Change) bool {
	if c.Op == wal.Truncate || s.w.cfg.Break == NoSelfMerge {
		return false
	}
	return c.Op == wal.Delete || c.Stamp.Generation > 0 || s.r.db.tables[tableOf(c.Relation.Ref())].conf.stampless()
}

func (s *sidecar) keyOf(c *wal.Change) rowKey {
	row := c.New
	if c.Op == wal.Delete {
		row = c.Old
	}
	n := tableOf(c.Relation.Ref())
	return rowKey{n, s.r.db.tables[n].keyText(row)}
}

// coalesce reduces the changes of some transactions to one run for each key. A run goes on
// only while it rises; what does not supersede it is an event of its own.
func (a *applier) coalesce(txs []keyedTx) []run {
	s := a.in.s
	var out []run
	at := map[rowKey]int{}
	for _, t := range txs {
		for i := range t.tx.Changes {
			c := &t.tx.Changes[i]
			r := run{key: s.keyOf(c), kind: t.kind, row: c.New, tx: t.tx}
			r.ev = conflict.Event{
				Kind: t.kind, Op: c.Op, Stamp: c.Stamp, Base: c.Base, Born: c.Op == wal.Insert,
				Complete: c.New.Complete(), CommitTime: t.tx.CommitTime,
			}
			tab := s.r.db.tables[r.key.table]
			if c.Op != wal.Delete {
				r.ev.Content, _ = conflict.Content(tab.rel, c.New)
			}
			n, seen := at[r.key]
			if !seen || out[n].kind != t.kind || t.kind != conflict.Live || s.w.cfg.Break != RunsFall && tab.pol.CompareSides(r.ev.Side(), out[n].ev.Side()) <= 0 {
				at[r.key] = len(out)
				out = append(out, r)
				continue
			}
			first := &out[n].ev
			r.ev.Base, r.ev.Born = first.Base, first.Born
			switch {
			case c.Op == wal.Delete:
			case first.Born:
				r.ev.Op = wal.Insert
			default:
				r.ev.Op = wal.Update
			}
			out[n] = r
		}
	}
	return out
}
