package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// outcome of one try.
type outcome uint8

const (
	done        outcome = iota
	locked              // somebody holds a row
	needOwn             // own changes have to be merged first
	needLater           // own changes have to be decoded first
	needCommits         // commits of others have to end first
	refused             // the table takes no such row
)

// inOrder holds a batch against the transaction that is open in parts, and abandons that when
// its origin has begun anew. It reports whether the batch can be applied.
func (a *applier) inOrder(txs []keyedTx) bool {
	if a.in.s.w.cfg.Break == GluedParts {
		return true
	}
	if a.parts && (len(txs) == 0 || !a.order.Continues(txs[0].tx)) {
		a.tx.rollback()
		a.tx, a.parts = nil, false
		a.in.s.local.Settle(a.holder(), false)
		a.order.Abandon()
	}
	plain := make([]*wal.Transaction, len(txs))
	for i := range txs {
		plain[i] = txs[i].tx
	}
	return a.order.Take(plain) == nil
}

// retry waits for what was missing, and applies again.
func (a *applier) retry(ds []delivery, txs []keyedTx, res outcome) {
	if a.waited.IsZero() {
		a.waited = time.Now()
	}
	a.await(txs, res, func(over bool) {
		if res == needOwn {
			a.barrier, a.overdue = true, over
		}
		a.apply(ds)
	})
}

// startAgain waits for what a transaction in parts needs, and reads it again from its first part.
func (a *applier) startAgain(txs []keyedTx, res outcome) {
	a.parts = false
	a.order.Abandon()
	a.await(txs, res, func(over bool) {
		if res == needOwn {
			a.in.giant, a.in.overdue = txs[0].tx.CommitLSN, over
		}
		a.in.again()
	})
}

// await waits, outside of a transaction, until another try makes sense, and calls then.
func (a *applier) await(txs []keyedTx, res outcome, then func(over bool)) {
	s := a.in.s
	w := s.w
	w.Stats.Barriers++
	began, at, recorded := time.Now(), s.r.db.insert, false
	var poll func()
	poll = func() {
		ok, over := res == locked || res == needCommits, false
		switch res {
		case needOwn:
			ok = s.local.MergedPast(at)
			if over = !ok && time.Since(began) > barrierLimit; over {
				w.Stats.Overdue++
				ok = true
			}
		case needLater:
			ok = s.local.Done() >= at
			far := !ok && w.cfg.Far && w.faulty && w.rng.IntN(3) == 0
			if ok || !far && !s.local.Stalled() {
				break
			}
			switch commit := txs[0].tx.CommitLSN; {
			case far: // it would take long
				w.Stats.Far++
				a.stamped, a.in.stamped, ok = true, commit, true
			case recorded, a.in.noted == commit: // stamping waits for changes behind these
				a.stamped, a.in.stamped, ok = true, commit, true
			case partsIn(txs):
				a.in.record, ok = commit, true
			default:
				a.recordItems(txs, true)
				recorded = true
			}
		}
		if ok {
			then(over)
			return
		}
		a.in.after(w.span(3000, 12_000), poll)
	}
	a.in.after(w.span(1000, 5000), poll)
}
