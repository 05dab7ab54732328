package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// applier writes what an inbound pipe has into the database: rows, tombstones, stamps, audit and
// checkpoint in one transaction, or nothing.
type applier struct {
	in      *inbound
	cp      checkpoint.Checkpoint // of the last commit
	busy    bool
	tx      *dbtx
	parts   bool // a transaction of many parts is open
	applied int  // deliveries, as SelfMerge.Idle counts them
	order   batch.Parts
	barrier bool
	overdue bool // it was waited for in vain
	stamped bool // nothing is stamped while it waits: it decides as things are
	waited  time.Time
	retries bool // it tries what is set aside
	held    bool // what it tries was held here
	lasts   batch.Lasts
}

type keyedTx struct {
	tx     *wal.Transaction
	kind   conflict.EventKind
	places []int // of its changes in the whole transaction; nil: it is whole
}

func (a *applier) close() {
	if a.tx != nil && !a.tx.over() {
		a.tx.rollback()
	}
	if a.in != nil {
		a.in.s.local.Settle(a.holder(), false)
	}
	a.tx, a.parts, a.busy = nil, false, false
	a.order.Abandon()
}

func (a *applier) wake() {
	if !a.busy && len(a.in.queue) == 0 && a.in.self {
		a.idle()
	}
	if a.busy || len(a.in.queue) == 0 {
		return
	}
	a.busy = true
	a.in.after(a.in.s.w.span(100, 2500), func() {
		ds := a.gather()
		a.applied += len(ds)
		a.in.queue = append([]delivery(nil), a.in.queue[len(ds):]...)
		a.in.wake()
		a.apply(ds)
	})
}

// idle saves the position behind what had nothing to merge.
func (a *applier) idle() {
	a.in.after(idleEvery, func() {
		if a.busy || len(a.in.queue) > 0 {
			return
		}
		if d := a.in.merge.Idle(a.applied); d != nil {
			a.busy = true
			before := a.in.cp
			a.apply([]delivery{{packet: &wire.Packet{}, kind: conflict.Self, before: before, cp: d.Checkpoint}})
		}
	})
}

// idleEvery is how often a held-back position is saved.
const idleEvery = 250 * time.Millisecond

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
	txs, resync := a.uncovered(ds)
	next := a.reached(ds, txs)
	more := len(txs) > 0 && txs[len(txs)-1].tx.More
	if a.waited.IsZero() && !a.inOrder(txs) {
		a.in.again()
		return
	}
	if a.in.s.w.cfg.AtOnce && a.waited.IsZero() && !a.in.self && !a.retries && !resync && !more && a.tx == nil && !partsIn(txs) && a.atOnce(ds, txs, next) {
		return
	}
	if a.in.self && a.in.record != 0 && len(txs) > 0 && txs[0].tx.CommitLSN == a.in.record {
		a.recordPart(txs, more)
		return
	}
	if a.in.self && a.tx == nil && !a.alone() {
		a.retry(ds, txs, needCommits)
		return
	}
	if a.tx == nil {
		a.tx = a.in.s.r.db.begin(true)
	}
	if partsIn(txs) {
		a.barrier, a.stamped = a.in.giant == txs[0].tx.CommitLSN, a.in.stamped == txs[0].tx.CommitLSN
		a.overdue = a.barrier && a.in.overdue
	}
	res := done
	if resync && !a.in.self {
		res = a.strays()
	}
	if res == done {
		res = a.rows(txs)
	}
	if res != done {
		a.undo()
		if partsIn(txs) {
			a.startAgain(txs, res)
			return
		}
		a.retry(ds, txs, res)
		return
	}
	a.count(txs)
	a.heard(txs)
	a.in.s.step("after rows")
	a.waited, a.barrier, a.overdue, a.stamped = time.Time{}, false, false, false
	if more {
		a.parts, a.busy = true, false
		a.wake()
		return
	}
	a.parts = false
	if !a.in.self && a.disturbed() {
		if ds[0].packet != nil && partsIn(txs) {
			a.in.again()
			return
		}
		a.undo()
		a.retry(ds, txs, locked)
		return
	}
	a.in.s.w.must(checkpoint.MustAdvance(a.cp, next, resync))
	a.commit(next, len(txs) > 0)
}

// uncovered is what of a batch the checkpoint does not cover yet.
func (a *applier) uncovered(ds []delivery) (txs []keyedTx, resync bool) {
	for i := range ds {
		d := &ds[i]
		resync = resync || d.ref.Resync
		for _, tx := range d.packet.Transactions {
			live := d.kind == conflict.Live || d.kind == conflict.Self
			if live && !resync && a.in.s.w.cfg.Break != NoSkip && a.cp.Covers(d.ref, tx.CommitLSN, tx.EndLSN) {
				continue
			}
			txs = append(txs, keyedTx{tx, d.kind, nil})
		}
	}
	return txs, resync
}

// reached is the checkpoint behind a batch.
func (a *applier) reached(ds []delivery, txs []keyedTx) checkpoint.Checkpoint {
	next := ds[len(ds)-1].cp
	next.Transactions = a.cp.Transactions
	for _, k := range txs {
		if k.kind == conflict.Live && !k.tx.More && !k.tx.Applied {
			next.Transactions++
		}
	}
	return next
}

// count counts the rows that were applied.
func (a *applier) count(txs []keyedTx) {
	for _, k := range txs {
		for i := range k.tx.Changes {
			if k.kind == conflict.Live && !k.tx.Changes[i].Repair {
				a.tx.rows++
			}
		}
	}
}

// undo rolls the open transaction back.
func (a *applier) undo() {
	a.tx.rollback()
	a.tx = nil
	a.in.s.local.Settle(a.holder(), false)
}

// commit sends the commit of rows and checkpoint on its way.
func (a *applier) commit(next checkpoint.Checkpoint, some bool) {
	w, s, tx := a.in.s.w, a.in.s, a.tx
	next.AppliedAt = w.now()
	if w.cfg.Break == SplitCommit && some {
		early := s.r.db.begin(true)
		early.cp, early.hasCP = next, true
		early.commit(true)
		s.step("between the commits")
		if w.chance(20) {
			panic(killed{s})
		}
	}
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
		a.send(next)
	})
}

// send commits.
func (a *applier) send(next checkpoint.Checkpoint) {
	w, s, tx := a.in.s.w, a.in.s, a.tx
	tx.cp, tx.hasCP = next, true
	tx.commit(!w.cfg.Async).life = s.life
	s.local.Settle(a.holder(), true)
	a.tx = nil
	w.note(s.r.id, "applied", uint64(a.in.origin)<<32|uint64(next.Incarnation), next.FrameNo)
	a.cp = next
	s.probe("applied", s.r.db.confirmed)
	s.probe("applied", s.r.db.saved)
	s.step("after commit")
	if a.in.self {
		s.mergedTo(next.EndLSN)
	}
	a.in.durable()
	a.busy, a.waited = false, time.Time{}
	a.wake()
}

// alone reports whether no commit of another applier is under way.
func (a *applier) alone() bool {
	x := a.in.s.local
	return x.Ended(x.Commits(), a.holder()) || a.in.s.w.cfg.Break == Unannounced
}

// disturbed announces the commit and reports whether a row that was put meets something that
// became known since.
func (a *applier) disturbed() bool {
	s := a.in.s
	s.local.Committing(a.holder())
	if s.w.cfg.Break == Unannounced {
		return false
	}
	for _, k := range a.tx.puts {
		switch s.local.Meets(a.holder(), s.r.db.tables[k.table].rel.Ref(), k.key) {
		case tombstone.MeetsOpen, tombstone.MeetsOwn:
			return true
		case tombstone.MeetsEntry:
			if s.r.db.keys[k].entry() && !a.tx.marked[k] {
				return true
			}
		}
	}
	return false
}

// partsIn reports whether a batch is a part of a giant transaction.
func partsIn(txs []keyedTx) bool { return len(txs) > 0 && (txs[0].tx.More || txs[0].tx.Part > 0) }

// barrierLimit bounds the wait for own changes to be merged.
const barrierLimit = 10 * time.Second

// recordItems writes the items of own changes by themselves, because stamping waits for them.
func (a *applier) recordItems(txs []keyedTx, end bool) {
	s := a.in.s
	if a.tx == nil {
		a.tx = s.r.db.begin(true)
	}
	a.ownItems(txs)
	if !end {
		return
	}
	a.tx.commit(!s.w.cfg.Async).life = s.life
	a.tx = nil
	s.local.Settle(a.holder(), true)
	s.w.Stats.Recorded++
	s.local.Recorded(txs[len(txs)-1].tx.CommitLSN + 1)
}

// recordPart is recordItems for a transaction in parts; behind its last part it begins again.
func (a *applier) recordPart(txs []keyedTx, more bool) {
	a.recordItems(txs, !more)
	if more {
		a.parts, a.busy = true, false
		a.wake()
		return
	}
	a.in.record, a.in.noted = 0, txs[0].tx.CommitLSN
	a.in.again()
}

// rows merges the changes into the open transaction.
func (a *applier) rows(txs []keyedTx) outcome {
	s, before := a.in.s, a.tx.savepoint()
	if a.in.self {
		a.ownItems(txs)
	}
	res := a.merge(txs)
	if res == refused {
		if partsIn(txs) {
			a.back(before)
		} else {
			a.tx.rollback()
			s.local.Settle(a.holder(), false)
			a.tx = s.r.db.begin(true)
		}
		if a.in.self {
			a.ownItems(txs)
		}
		res = a.ordered(txs)
	}
	if res != done {
		return res
	}
	return a.answer(txs)
}

// merge decides about the net effect of some transactions.
func (a *applier) merge(txs []keyedTx) outcome {
	runs := a.coalesce(txs)
	for i := range runs { // locks first: what is decided must not change any more
		if !a.tx.lock(runs[i].key) {
			return locked
		}
	}
	for i := range runs {
		if res := a.row(&runs[i]); res != done {
			return res
		}
	}
	return done
}

// ownItems keeps what the own changes of a merge say of their positions: also of those that a
// later one of the same batch replaces.
func (a *applier) ownItems(txs []keyedTx) {
	s := a.in.s
	plain := make([]*wal.Transaction, len(txs))
	for i, t := range txs {
		plain[i] = t.tx
	}
	for _, it := range apply.OwnItems(s.applyPolicy(), s.local.Index, plain) {
		k := rowKey{tableOf(it.Relation), it.Key}
		a.tx.put(k, a.tx.get(k).with(it.Item, s.horizon()), nil)
		s.local.Put(it.Relation, []byte(it.Key), it.Item)
	}
}

// name is that of the origin.
func (a *applier) name() string { return a.in.s.w.regions[a.in.origin].name }

// holder names the applier in the index.
func (a *applier) holder() string {
	if a.retries {
		return a.name() + "/parked"
	}
	return a.name()
}

// pid is the process of the server that it runs in.
func (a *applier) pid() uint32 {
	if a.retries {
		return uint32(101 + a.in.origin)
	}
	return uint32(1 + a.in.origin)
}

// blind announces a tombstone where no row is, which nothing keeps rows from: its position, or
// what has to be waited for.
func (a *applier) blind(k rowKey) (at wal.LSN, res outcome) {
	s := a.in.s
	d := s.r.db
	if s.w.cfg.Break == BlindStamps {
		return d.insert, done
	}
	at, ok := s.local.Blind(a.holder(), a.pid(), d.tables[k.table].rel.Ref(), []string{k.key})
	if !ok {
		if a.barrier {
			s.local.BlindAt(a.holder(), a.pid(), d.tables[k.table].rel.Ref(), []string{k.key}, d.insert)
			return d.insert, done // nothing moves
		}
		return 0, needOwn
	}
	if !a.alone() {
		return 0, needCommits
	}
	if s.local.Unseen(d.unseen()) {
		return 0, needOwn
	}
	a.tx.sync = true
	return at, done
}
