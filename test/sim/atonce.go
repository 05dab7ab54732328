package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// atOnce restates what apply.Applier does with a small batch that needs no decision, by what it knows: it announces the commit, asks the
// index, and sends rows, checkpoint and commit together. What the database is then, by the time that they arrive, decides whether they go
// in. It reports false where the batch has to be applied in the other way from the start; if it has to be later on, that begins by itself.
func (a *applier) atOnce(ds []delivery, txs []keyedTx, next checkpoint.Checkpoint) bool {
	s := a.in.s
	runs := a.coalesce(txs)
	if len(runs) == 0 || len(runs) > 64 {
		return false
	}
	for _, k := range txs {
		if len(k.tx.Notices) > 0 {
			return false
		}
	}
	for i := range runs {
		if !a.plainly(&runs[i]) {
			return false
		}
	}
	if s.w.cfg.Break != Unannounced {
		s.local.Committing(a.holder())
	}
	for i := range runs {
		r := &runs[i]
		ref := s.ref(r.key)
		if s.local.May(ref.Relation, []byte(ref.Key)) || r.ev.Op == wal.Insert && s.local.Meets(a.holder(), ref.Relation, ref.Key) != tombstone.Alone {
			s.local.Settle(a.holder(), false)
			return false
		}
	}
	next.AppliedAt = s.w.now()
	late := int64(1500)
	if s.w.cfg.Blind {
		late = 15_000
	}
	f := &sending{a: a, ds: ds, txs: txs, runs: runs, next: next}
	a.in.after(s.w.span(20, late), f.arrive)
	return true
}

// plainly reports whether the fast path may write a run.
func (a *applier) plainly(r *run) bool {
	s := a.in.s
	t, e := s.r.db.tables[r.key.table], s.r.db.keys[r.key]
	b, st := r.ev.Base, r.ev.Stamp
	ordinary := func(m wal.Micros) bool { return m != wal.MinMicros && m != wal.MaxMicros && m != conflict.Beyond }
	ref := s.ref(r.key)
	if r.kind != conflict.Live || r.ev.Op == wal.Delete || t.conf.stampless() || st.Generation > 0 || b.Stamp.Generation > 0 || b.HasDigest ||
		t.conf.Time && !ordinary(st.UpdatedAt) || t.pol.Skewed(st, r.tx.CommitTime) || e.parked != nil || s.local.May(ref.Relation, []byte(ref.Key)) {
		return false
	}
	switch {
	case r.ev.Op == wal.Insert:
		return r.row.Complete()
	case !b.Known:
		return t.conf.Order == conflict.VersionFirst && t.conf.Version && st.Version != wal.NullVersion && r.row.Complete()
	case t.conf.Version && b.Stamp.Version == wal.NullVersion, t.conf.Time && !ordinary(b.Stamp.UpdatedAt):
		return false
	case t.conf.Order == conflict.VersionFirst:
		return b.Stamp.Compare(st) < 0
	}
	return b.Stamp.UpdatedAt < st.UpdatedAt
}

// sending is a batch that is on its way to the server.
type sending struct {
	a     *applier
	ds    []delivery
	txs   []keyedTx
	runs  []run
	next  checkpoint.Checkpoint
	n     int // runs that are written
	waits int
}

// patient is how often it looks whether a lock that it waits for was given back.
const patient = 40

// arrive writes one row after the other, and waits for locks as a session of the server does.
func (f *sending) arrive() {
	a := f.a
	s := a.in.s
	d := s.r.db
	if f.n == 0 && a.tx == nil {
		a.tx = d.begin(true)
	}
	if a.tx.over() {
		a.in.again()
		return
	}
	for ; f.n < len(f.runs); f.n++ {
		switch f.write(&f.runs[f.n]) {
		case locked:
			if f.waits++; f.waits > patient {
				f.back()
				return
			}
			a.in.after(s.w.span(50, 2000), f.arrive)
			return
		case refused:
			f.back()
			return
		}
	}
	for i := range f.runs { // asked behind the writes
		if d.keys[f.runs[i].key].entry() && s.w.cfg.Break != Unasked {
			f.back()
			return
		}
	}
	a.count(f.txs)
	s.w.must(checkpoint.MustAdvance(a.cp, f.next, false))
	s.w.Stats.AtOnce++
	a.send(f.next)
}

// write writes one row, if the database is as the statement wants it.
func (f *sending) write(r *run) outcome {
	a := f.a
	d := a.in.s.r.db
	t, e := d.tables[r.key.table], a.tx.get(r.key)
	if d.late[r.key] != nil || !a.tx.lock(r.key) || !a.tx.claim(r.key, true) {
		return locked
	}
	c := &walChange{table: r.key.table, op: wal.Insert}
	if r.ev.Op == wal.Insert {
		if e.row != nil {
			return refused
		}
	} else {
		if e.row == nil {
			return refused
		}
		c.op = wal.Update
		if t.conf.Full {
			c.old, c.full = e.row, true
		}
		is, err := conflict.StampOf(t.cols, t.rel, e.row, wal.MinMicros)
		a.in.s.w.must(err)
		b := r.ev.Base
		switch {
		case b.Known && (t.conf.Version && is.Version != b.Stamp.Version || t.conf.Time && is.UpdatedAt != b.Stamp.UpdatedAt):
			return refused
		case !b.Known && (is.Version == wal.NullVersion || is.Version >= r.ev.Stamp.Version):
			return refused
		}
		a.complete(r, e)
		if !r.row.Complete() {
			return refused
		}
	}
	if a.refuses(r, e) {
		return refused
	}
	c.new = r.row
	e.row, e.wid, e.local = r.row, widOf(r.row), false
	a.tx.put(r.key, e, c)
	return done
}

// back is what is left when the server has rolled it back: the batch is applied in the other way.
func (f *sending) back() {
	a := f.a
	a.undo()
	a.waited = time.Now()
	a.apply(f.ds)
}
