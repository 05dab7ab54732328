package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// applier writes what an inbound pipe has into the database: rows, graves, stamps, audit and
// checkpoint in one transaction, or nothing.
type applier struct {
	in      *inbound
	cp      checkpoint.Checkpoint // of the last commit
	busy    bool
	tx      *dbtx
	parts   bool // a transaction of many parts is open
	order   batch.Parts
	barrier bool
	waited  time.Time
}

type keyedTx struct {
	tx   *wal.Transaction
	kind conflict.EventKind
}

// outcome of one try.
type outcome uint8

const (
	done        outcome = iota
	locked              // somebody holds a row
	needOwn             // own changes have to be merged first
	needLater           // own changes have to be decoded first
	needCommits         // commits of others have to end first
)

func (a *applier) close() {
	if a.tx != nil && !a.tx.over() {
		a.tx.rollback()
	}
	if a.in != nil {
		a.in.s.index.Settle(a.name(), false)
	}
	a.tx, a.parts, a.busy = nil, false, false
	a.order.Abandon()
}

func (a *applier) wake() {
	if a.busy || len(a.in.queue) == 0 {
		return
	}
	a.busy = true
	a.in.after(a.in.s.w.span(100, 2500), func() {
		ds := a.gather()
		a.in.queue = append([]delivery(nil), a.in.queue[len(ds):]...)
		a.in.wake()
		a.apply(ds)
	})
}

// gather takes what is there, up to a batch.
func (a *applier) gather() []delivery {
	g := batch.Gathering{Limit: a.in.s.w.cfg.BatchRows}
	for n, d := range a.in.queue {
		if !g.Take(d.packet.Transactions, d.ref.Incarnation != d.before.Incarnation) {
			return a.in.queue[:n]
		}
	}
	return a.in.queue
}

// apply tries a batch until it is in.
func (a *applier) apply(ds []delivery) {
	w, s := a.in.s.w, a.in.s
	var txs []keyedTx
	resync := false
	for i := range ds {
		d := &ds[i]
		resync = resync || d.ref.Resync
		for _, tx := range d.packet.Transactions {
			live := d.kind == conflict.Live || d.kind == conflict.Self
			if live && !resync && w.cfg.Break != NoSkip && a.cp.Covers(d.ref, tx.CommitLSN, tx.EndLSN) {
				continue
			}
			txs = append(txs, keyedTx{tx, d.kind})
		}
	}
	next := ds[len(ds)-1].cp
	next.Transactions = a.cp.Transactions
	more := false
	for _, k := range txs {
		if k.kind == conflict.Live && !k.tx.More && !k.tx.Applied {
			next.Transactions++
		}
		more = k.tx.More
	}
	if a.waited.IsZero() && !a.inOrder(txs) {
		a.in.again()
		return
	}
	if a.in.self && a.tx == nil && !a.alone() {
		a.retry(ds, needCommits)
		return
	}
	if a.tx == nil {
		a.tx = s.r.db.begin(true)
	}
	var before dbtx
	if a.parts {
		before = a.tx.savepoint()
	}
	res := a.rows(txs)
	switch res {
	case done:
	default:
		if a.parts {
			// A part cannot be tried again by itself.
			if res == locked || res == needCommits {
				a.in.again()
				return
			}
			a.tx.rollbackTo(before)
			s.index.Doubt(a.name())
		} else {
			a.tx.rollback()
			a.tx = nil
			s.index.Settle(a.name(), false)
		}
		a.retry(ds, res)
		return
	}
	for _, k := range txs {
		for i := range k.tx.Changes {
			if k.kind == conflict.Live && !k.tx.Changes[i].Repair {
				a.tx.rows++
			}
		}
	}
	a.heard(txs)
	s.step("after rows")
	a.waited, a.barrier = time.Time{}, false
	if more {
		a.parts, a.busy = true, false
		a.wake()
		return
	}
	a.parts = false
	tx := a.tx
	if !a.in.self && a.disturbed() {
		if len(ds) > 0 && ds[0].packet != nil && partsIn(txs) {
			a.in.again()
			return
		}
		tx.rollback()
		a.tx = nil
		s.index.Settle(a.name(), false)
		a.retry(ds, locked)
		return
	}
	w.must(checkpoint.MustAdvance(a.cp, next, resync))
	next.AppliedAt = w.now()
	if w.cfg.Break == SplitCommit && len(txs) > 0 {
		early := s.r.db.begin(true)
		early.cp, early.hasCP = next, true
		early.commit(true)
		s.step("between the commits")
		if w.chance(20) {
			panic(killed{s})
		}
	}
	tx.cp, tx.hasCP = next, true
	late := int64(1500)
	if w.cfg.Blind {
		late = 15_000
	}
	a.in.after(w.span(20, late), func() { // the commit is on its way to the server
		if tx.over() {
			a.in.again()
			return
		}
		s.step("before commit")
		tx.commit(!w.cfg.Async).life = s.life
		s.index.Settle(a.name(), true)
		a.tx = nil
		w.note(s.r.id, "applied", uint64(a.in.origin)<<32|uint64(next.Incarnation), next.FrameNo)
		a.cp = next
		s.probe("applied", s.r.db.confirmed)
		s.probe("applied", s.r.db.saved)
		s.step("after commit")
		if a.in.self {
			s.own.mergedTo(next.EndLSN)
		}
		a.in.durable()
		a.busy = false
		a.wake()
	})
}

// alone reports whether no commit of another applier is under way.
func (a *applier) alone() bool {
	x := a.in.s.index
	return x.Ended(x.Commits(), a.name()) || a.in.s.w.cfg.Break == Unannounced
}

// disturbed announces the commit and reports whether a row that was put meets something that
// became known since.
func (a *applier) disturbed() bool {
	s := a.in.s
	s.index.Committing(a.name())
	if s.w.cfg.Break == Unannounced {
		return false
	}
	for _, k := range a.tx.puts {
		if s.own.pending[k] != (part{}) {
			return true
		}
		if s.index.Meets(a.name(), s.r.db.tables[k.table].rel.Ref(), k.key) == tombstone.MeetsOpen {
			return true
		}
		if s.r.db.keys[k].grave != nil && !a.tx.graved[k] {
			return true
		}
	}
	return false
}

// partsIn reports whether a batch is a part of a giant transaction.
func partsIn(txs []keyedTx) bool { return len(txs) > 0 && (txs[0].tx.More || txs[0].tx.Part > 0) }

// inOrder holds a batch against the transaction that is open in parts, and abandons that when
// its origin has begun anew. It reports whether the batch can be applied.
func (a *applier) inOrder(txs []keyedTx) bool {
	if a.in.s.w.cfg.Break == GluedParts {
		return true
	}
	if a.parts && (len(txs) == 0 || !a.order.Continues(txs[0].tx)) {
		a.tx.rollback()
		a.tx, a.parts = nil, false
		a.order.Abandon()
	}
	plain := make([]*wal.Transaction, len(txs))
	for i := range txs {
		plain[i] = txs[i].tx
	}
	return a.order.Take(plain) == nil
}

// retry waits for what was missing.
func (a *applier) retry(ds []delivery, res outcome) {
	s := a.in.s
	w := s.w
	if a.waited.IsZero() {
		a.waited = time.Now()
		w.Stats.Barriers++
	}
	limit := 10 * time.Second
	if a.parts {
		limit = 2 * time.Second
	}
	at := s.r.db.insert
	var poll func()
	poll = func() {
		ok := res == locked || res == needCommits
		switch res {
		case needOwn:
			ok = s.own.passed(at) || time.Since(a.waited) > limit
			a.barrier = ok
		case needLater:
			ok = s.own.decoded >= at || time.Since(a.waited) > 3*limit
		}
		if ok {
			a.apply(ds)
			return
		}
		a.in.after(w.span(3000, 12_000), poll)
	}
	a.in.after(w.span(1000, 5000), poll)
}

// rows merges the changes into the open transaction.
func (a *applier) rows(txs []keyedTx) outcome {
	runs := a.coalesce(txs)
	if a.in.self {
		a.ownItems(txs)
	}
	for i := range runs { // locks first: what is decided must not change any more
		if !a.tx.lock(runs[i].key) {
			return locked
		}
	}
	for i := range runs {
		r := &runs[i]
		if res := a.row(r); res != done {
			return res
		}
	}
	return a.answer(txs)
}

// ownItems keeps what the own changes of a merge say of their positions: also of those that a
// later one of the same batch replaces.
func (a *applier) ownItems(txs []keyedTx) {
	s := a.in.s
	for _, t := range txs {
		for i := range t.tx.Changes {
			c := &t.tx.Changes[i]
			if !s.needsMerge(c) {
				continue
			}
			k := s.keyOf(c)
			a.tx.put(k, a.tx.get(k).with(s.itemOf(t.tx.CommitLSN, c), s.horizon()), nil)
		}
	}
}

// itemOf is what a change says of its key behind a position.
func (s *sidecar) itemOf(at wal.LSN, c *wal.Change) conflict.Item {
	it := conflict.Item{LSN: at, Next: conflict.NextGeneration(c.Stamp, c.Op != wal.Delete)}
	if s.r.db.tables[tableOf(c.Relation.Ref())].conf.stampless() {
		it.At = c.Stamp.UpdatedAt
	}
	return it
}

// name names the applier in the index.
func (a *applier) name() string { return a.in.s.w.regions[a.in.origin].name }

// blind announces a tombstone where no row is, which nothing keeps rows from: its position, or
// what has to be waited for.
func (a *applier) blind(k rowKey) (at wal.LSN, res outcome) {
	s := a.in.s
	d := s.r.db
	if s.w.cfg.Break == BlindStamps {
		return d.insert, done
	}
	at, ok := s.index.Blind(a.name(), 1, d.tables[k.table].rel.Ref(), []string{k.key})
	if !ok {
		if a.barrier {
			return d.insert, done // nothing moves
		}
		return 0, needOwn
	}
	if !a.alone() {
		return 0, needCommits
	}
	var open []uint32
	for _, t := range d.late {
		open = append(open, t.xid)
	}
	if s.index.Unseen(open) {
		return 0, needOwn
	}
	a.tx.sync = true
	return at, done
}
