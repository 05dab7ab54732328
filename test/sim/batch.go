package sim

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// run is the net effect of a batch on one key.
type run struct {
	key      rowKey
	kind     conflict.EventKind
	ev       conflict.Event
	row      wal.Tuple // nil for deletes
	sent     wal.Tuple // as it came, before anything was filled in
	tx       *wal.Transaction
	followed bool // by another run of the key
	skip     bool // nothing to record
	plain    bool // it says only when its row was written
	answer   bool // it is what its origin was asked for,
	asked    wal.Stamp
}

func (s *sidecar) keyOf(c *wal.Change) rowKey {
	row := c.New
	if c.Op == wal.Delete {
		row = c.Old
	}
	n := tableOf(c.Relation.Ref())
	return rowKey{n, s.r.db.tables[n].keyText(row)}
}

// coalesce reduces the changes of some transactions to one run for each key.
func (a *applier) coalesce(txs []keyedTx) []run {
	s := a.in.s
	b := batch.New()
	b.Policy = func(n wal.RelationName) conflict.Policy {
		if s.w.cfg.Break == RunsFall {
			return conflict.Policy{Order: conflict.VersionFirst}
		}
		return s.r.db.tables[tableOf(n)].pol
	}
	b.Lasts = a.lasts
	for _, t := range txs {
		b.AddPicked(t.tx, t.kind, t.places)
	}
	var out []run
	for _, g := range b.Groups {
		n := tableOf(g.Rel.Ref())
		for i := range g.Runs {
			br := &g.Runs[i]
			r := run{key: rowKey{n, g.KeyText(br)}, kind: g.Kind, tx: br.Tx, followed: br.Followed, answer: br.Answer, asked: br.Asked, ev: conflict.Event{
				Kind: g.Kind, Op: br.Op, Stamp: br.Stamp, Base: br.Base, Born: br.Born,
				Complete: br.Op == wal.Delete || br.Image.Complete(), CommitTime: br.Tx.CommitTime,
			}}
			if br.Op != wal.Delete {
				r.row = br.Image
				r.ev.Content, _ = conflict.Content(s.r.db.tables[n].rel, br.Image)
			}
			r.plain = a.in.self && s.isPlain(n, &r)
			out = append(out, r)
		}
	}
	return out
}

// isPlain reports whether a run of own changes says nothing but when its row was written, and
// nothing else is known of its key, as Applier.isPlain does.
func (s *sidecar) isPlain(table int, r *run) bool {
	t := s.r.db.tables[table]
	ch := wal.Change{Op: r.ev.Op, Stamp: r.ev.Stamp}
	return t.conf.stampless() && conflict.Plain(&ch, r.tx.CommitTime) && !s.local.May(t.rel.Ref(), []byte(r.key.key))
}
