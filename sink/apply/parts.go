package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrStartAgain: a transaction of many parts was rolled back. It has to be read again from
// the checkpoint; what stood in its way was waited for. It is not a failure.
var ErrStartAgain = errors.New("a transaction of many parts has to be applied again from its first part")

// giant is what the applier remembers of a transaction of many parts while it is tried.
type giant struct {
	commit  wal.LSN // names it; 0: none
	barrier bool    // the barrier was waited for
	overdue bool    // in vain
	record  bool    // the items of its changes are written first, by themselves
	rounds  int     // how often that was begun
	guessed int     // changes that were set aside since, because waiting would never end
	contest contest // with own changes that it met at its end
	beaten  bool    // it was rolled back for another giant transaction, see Giants
	tried   patience
	failed  bool // it failed at its end, or again and again: what fails now is parked, part by part
	again   int  // how often it began again
	parts   int  // that went in, or were read for their items, since it began the last time
	undone  int  // and before
}

// ErrParts: a part came that does not follow the one before. The caller starts again from the
// checkpoint, where the transaction begins.
var ErrParts = batch.ErrParts

// inOrder holds what is to be applied against the open transaction: only its own next part
// continues it, and anything else abandons it, because its origin has begun anew.
func (a *Applier) inOrder(ctx context.Context, txs []keyedTx) error {
	if a.order.Open() && (len(txs) == 0 || !a.order.Continues(txs[0].tx)) {
		a.cfg.Log.Info("a transaction in parts is abandoned; it comes again", "origin", a.cfg.Origin, "due", a.order.String())
		if err := a.rollback(ctx); err != nil {
			return err
		}
	}
	plain := make([]*wal.Transaction, len(txs))
	for i := range txs {
		plain[i] = txs[i].tx
	}
	if err := a.order.Take(plain); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// applyPart applies part of a giant transaction. The local transaction stays open until the
// last part, so that the change becomes visible at once, and memory holds one part only.
//
// Rows that cannot be applied are dealt with here, behind a savepoint. Everything else cannot
// be repeated from memory: the transaction is rolled back and begins again from the
// checkpoint (ErrStartAgain). Nothing waits while it is open.
func (a *Applier) applyPart(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, more bool) error {
	if len(txs) > 0 && a.giant.commit != txs[0].tx.CommitLSN {
		a.giant = giant{commit: txs[0].tx.CommitLSN, tried: a.patient()}
		// What an older wait has shown says nothing of rows that are not there. It is better to find that out in the first part than in the
		// last, when the stream may not hold the first one any more.
		a.stamping.by = nil
	}
	if !a.open && a.giant.parts > 0 {
		a.giant.again, a.giant.undone, a.giant.parts = a.giant.again+1, a.giant.undone+a.giant.parts, 0
	}
	if err := a.readyForGiant(ctx, txs); err != nil {
		return err
	}
	if err := a.beginGiant(ctx, txs); err != nil {
		return err
	}
	a.barrier, a.overdue, a.impatient = a.giant.barrier, a.giant.overdue, a.giant.failed
	defer func() { a.barrier, a.overdue, a.impatient = false, false, false }()
	var err error
	if a.giant.record {
		if err = a.recordItems(ctx, txs, !more); err == nil && !more {
			a.giant.record, a.giant.parts = false, a.giant.parts+1
			a.waitBehind(ctx)
			return nil
		}
	} else {
		err = a.part(ctx, txs, next, more)
	}
	if err == nil {
		a.giant.parts++
		a.cfg.Giants.went(a.cfg.Origin)
		a.cfg.Index.Moved(a.holder())
		return nil
	}
	return a.partFailed(ctx, err)
}

// readyForGiant waits, before the first part of a giant transaction of another region, until own changes are known. The
// first of them that it meets would ask for that, and undo all that was done by then; it meets one nearly always. There is
// little to wait for where this region reads its WAL in time. What is missed from now on the self-merge puts right.
func (a *Applier) readyForGiant(ctx context.Context, txs []keyedTx) error {
	if a.open || a.cfg.Self || a.cfg.Barrier == nil || a.giant.barrier || len(txs) == 0 {
		return nil
	}
	if err := a.waitBarrier(ctx); err != nil {
		return err
	}
	a.giant.barrier, a.giant.overdue = true, a.overdue
	return nil
}

// beginGiant waits, before the first part, until no giant transaction stands in the way.
func (a *Applier) beginGiant(ctx context.Context, txs []keyedTx) error {
	if a.open || len(txs) == 0 {
		a.cfg.Giants.moved(a.cfg.Origin)
		return nil
	}
	t := taker{at: txs[0].tx.CommitTime, origin: a.cfg.Origin, beaten: a.giant.beaten}
	return a.cfg.Giants.begin(ctx, a.cfg.Origin, t, func() {
		a.cfg.Log.Info("giant transaction waits for that of another region", "origin", a.cfg.Origin, "commit_lsn", a.giant.commit.String())
	})
}

// GivesWay reports whether the transaction in parts is better abandoned than to go on waiting for its next
// part: an earlier one waits for it, or nothing more comes of what was to be left out.
func (a *Applier) GivesWay() bool {
	if a.behind != nil && a.behind.over() {
		return true
	}
	return a.open && a.cfg.Giants.givesWay(a.cfg.Origin)
}

// partFailed rolls a giant transaction back that failed, and does what it needs before it can begin
// again: ErrStartAgain. Other errors end the run.
func (a *Applier) partFailed(ctx context.Context, err error) error {
	met := a.cfg.Giants.met(a.cfg.Origin)
	if rerr := a.rollback(ctx); rerr != nil {
		return errors.Join(err, rerr)
	}
	if ctx.Err() != nil {
		return err
	}
	a.forgetSchemas()
	var cascade *cascadeError
	var open *openError
	switch {
	case errors.Is(err, errBarrier):
		if berr := a.waitBarrier(ctx); berr != nil {
			return berr
		}
		a.giant.barrier, a.giant.overdue = true, a.overdue
	case errors.Is(err, errNotStamped):
		if werr := a.stampedParts(ctx); werr != nil {
			return werr
		}
	case errors.As(err, &cascade):
		done, cerr := a.tryCascade(ctx, cascade, &a.giant.tried)
		if cerr != nil {
			return cerr
		}
		a.giant.failed = a.giant.failed || !done
	case errors.As(err, &open):
		if werr := a.awaitOpen(ctx, open); werr != nil {
			return werr
		}
	case met && lockLost(err):
		// Its rows are held, perhaps, by the other giant transaction: that one ends first. What was
		// tried does not count.
		a.cfg.Giants.fought()
		a.giant.beaten, a.giant.tried = true, a.patient()
		a.Stats.Retries.Add(1)
	case a.giant.tried.left(err):
		if rerr := a.recover(ctx, err, a.giant.tried); rerr != nil {
			return rerr
		}
	case parkable(err) && !a.giant.failed:
		// What is locked by then is parked, but for what stands beside the rows: that is waited for anew.
		a.giant.failed, a.giant.tried = true, a.patient()
	default:
		return err
	}
	a.cfg.Log.Info("giant transaction begins again", "origin", a.cfg.Origin, "commit_lsn", a.giant.commit.String(), "reason", publicError(err))
	return ErrStartAgain
}

// part applies one part behind a savepoint; with the last one it commits.
func (a *Applier) part(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, more bool) error {
	b := pipeline{fence: -1}
	if !a.open {
		if err := a.begin(ctx, &b); err != nil {
			return err
		}
		a.open, a.openFx, a.openPut = true, effects{}, map[uint64]openPut{}
	}
	b.text("savepoint part")
	var fx effects
	if a.cfg.Self {
		if err := a.announceMerge(ctx, txs); err != nil {
			return err
		}
		fx.items = a.ownItems(txs)
	}
	err := a.changesOfPart(ctx, &b, txs, &fx)
	for n := 0; n < partTries && lockLost(err) && a.batchesOpen(); n++ {
		err = a.partAgain(ctx, txs, &fx)
	}
	if err == nil && (a.giant.failed || !more) {
		if err = a.checkConstraints(ctx); err != nil && !a.giant.failed {
			// What a deferred constraint finds here may be in an earlier part: the next try
			// checks behind every part.
			return err
		}
	}
	if err == nil {
		err = a.simple(ctx, "release savepoint part")
	} else if a.setAside(err) {
		err = a.partInOrder(ctx, txs, &fx, err)
	}
	if err == nil && !more {
		err = a.checkOpen(ctx)
	}
	if err == nil {
		err = a.heard(ctx, txs, &fx)
	}
	if err != nil {
		return err
	}
	if more {
		// Side effects of a part are written with the part, so that memory stays bounded;
		// they are counted after the commit.
		return a.flushPart(ctx, &fx)
	}
	return a.endParts(ctx, txs, next, &fx)
}

// changesOfPart applies the changes of a part: set-wise, or in order where a change may have ended
// the session before.
func (a *Applier) changesOfPart(ctx context.Context, b *pipeline, txs []keyedTx, fx *effects) error {
	if careful, _ := a.cfg.Suspects.care(a.cp, partOf(txs)); !careful {
		return a.set(ctx, b, txs, fx)
	}
	if err := a.run(ctx, b, nil, nil, nil); err != nil {
		return err
	}
	return a.ordered(ctx, txs, fx)
}

const (
	// partTries is how often a part is tried again behind the batches of other appliers, and partWait how long it waits for their end each time.
	partTries = 8
	partWait  = 10 * time.Second
)

// batchesOpen reports whether a lock may be held by a batch of another applier, which is small and gives way to a giant transaction, and
// not by another giant transaction.
func (a *Applier) batchesOpen() bool {
	return a.cfg.Batches.open(a.holder()) && !a.cfg.Giants.open(a.cfg.Origin)
}

// partAgain undoes a part that did not get a lock, waits until the batches of other appliers that are open have ended, and tries it again: all parts
// in front of it stay. It does not wait for a lock meanwhile, so that no session of the application is in a deadlock with it.
func (a *Applier) partAgain(ctx context.Context, txs []keyedTx, fx *effects) error {
	a.Stats.Retries.Add(1)
	*fx = effects{items: fx.items}
	if err := a.back(ctx, "part"); err != nil {
		return err
	}
	if err := a.cfg.Batches.gone(ctx, a.holder(), partWait); err != nil {
		return err
	}
	return a.changesOfPart(ctx, &pipeline{fence: -1}, txs, fx)
}

// partInOrder undoes a part that failed because of one of its rows, and applies it one by one.
func (a *Applier) partInOrder(ctx context.Context, txs []keyedTx, fx *effects, cause error) error {
	a.cfg.Log.Info("applying one by one", "origin", a.cfg.Origin, "reason", publicError(cause))
	a.Stats.Ordered.Add(1)
	*fx = effects{items: fx.items}
	a.cfg.Index.Doubt(a.holder())
	if err := a.simple(ctx, "rollback to savepoint part; release savepoint part"); err != nil {
		return err
	}
	return a.ordered(ctx, txs, fx)
}

// endParts commits a giant transaction; fx is of its last part.
func (a *Applier) endParts(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, fx *effects) error {
	last := pipeline{fence: -1}
	if err := a.saveCheckpoint(ctx, &last, next); err != nil {
		return err
	}
	if err := a.run(ctx, &last, nil, nil, nil); err != nil {
		return err
	}
	fx.addRemoved(a.openFx.removed, 0)
	a.openFx.removed = nil
	if err := a.commit(ctx, fx, next); err != nil {
		return fmt.Errorf("end a transaction of many parts: %w", err)
	}
	if g := a.giant; g.again > 0 {
		a.cfg.Log.Info("giant transaction is applied", "origin", a.cfg.Origin, "commit_lsn", g.commit.String(), "began_again", g.again, "parts", g.parts+1, "parts_undone", g.undone)
	}
	a.open, a.giant = false, giant{}
	a.cfg.Giants.end(a.cfg.Origin)
	fx.add(a.openFx)
	a.openFx, a.openPut = effects{}, nil
	a.committed(txs, next, fx)
	return nil
}

// maxOpenPut is how many rows that earlier parts have put are asked for at the end.
const maxOpenPut = 1 << 20

// flushPart writes the side effects of one part within the open transaction.
func (a *Applier) flushPart(ctx context.Context, fx *effects) error {
	if err := a.spill(ctx, fx); err != nil {
		return err
	}
	a.openFx.logged.Add(fx.logged)
	a.openFx.parked += fx.parked
	a.openFx.ended += fx.ended
	a.openFx.rows += fx.rows
	a.openFx.copies(fx.due...)
	for _, p := range fx.put {
		if !p.wrote && len(a.openPut) < maxOpenPut {
			rel := a.ledger(p.g.Rel)
			a.openPut[a.cfg.Index.Hash(rel, p.g.KeyText(&p.g.Runs[p.i]))] = openPut{rel, p.suspect, p.noted}
		}
	}
	a.openFx.blind = a.openFx.blind || fx.blind
	a.openFx.addRemoved(fx.removed, maxRemoved)
	return nil
}

// back returns to a savepoint, which stays.
func (a *Applier) back(ctx context.Context, savepoint string) error {
	a.cfg.Index.Doubt(a.holder())
	_, err := a.conn.Exec(ctx, "rollback to savepoint "+savepoint)
	return err
}
