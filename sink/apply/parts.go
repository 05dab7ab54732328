package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/checkpoint"
)

// applyPart applies part of a giant transaction. The local transaction stays open until the
// last part, so that the change becomes visible at once, and memory holds one part only. A
// failure cannot be repeated from memory: it is returned, and the caller starts again from
// the checkpoint. Only rows that cannot be applied are dealt with here, behind a savepoint.
func (a *Applier) applyPart(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, more bool) error {
	err := a.part(ctx, txs, next, more)
	if err != nil {
		err = errors.Join(err, a.rollback(ctx))
	}
	return err
}

func (a *Applier) part(ctx context.Context, txs []keyedTx, next checkpoint.Checkpoint, more bool) error {
	b := pipeline{fence: -1}
	if !a.open {
		if err := a.begin(ctx, &b); err != nil {
			return err
		}
		a.open, a.openFx = true, effects{}
	}
	b.text("savepoint part")
	var fx effects
	err := a.set(ctx, &b, txs, &fx)
	if errors.Is(err, errBarrier) {
		// The rows of earlier parts are locked, so the wait is bounded; what it may miss
		// the self-merge puts right.
		a.barrier = true
		defer func() { a.barrier = false }()
		waiting, cancel := context.WithTimeout(ctx, partBarrier)
		berr := a.cfg.Barrier(waiting)
		cancel()
		if berr != nil && ctx.Err() != nil {
			return berr
		}
		fx = effects{}
		if err = a.back(ctx, "part"); err == nil {
			err = a.set(ctx, &pipeline{fence: -1}, txs, &fx)
		}
	}
	if rowError(err) || errors.Is(err, errRace) {
		a.cfg.Log.Info("applying one by one", "origin", a.cfg.Origin, "reason", publicError(err))
		a.Stats.Ordered.Add(1)
		fx = effects{}
		if err = a.back(ctx, "part"); err == nil {
			err = a.ordered(ctx, txs, &fx)
		}
	}
	if err != nil {
		return err
	}
	// One level of subtransaction at a time, however many parts there are.
	if _, err := a.conn.Exec(ctx, "release savepoint part"); err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	if more {
		// Side effects of a part are written with the part, so that memory stays bounded;
		// audit rows are few and told after the commit.
		return a.flushPart(ctx, &fx)
	}
	last := pipeline{fence: -1}
	a.saveCheckpoint(&last, next)
	if err := a.run(ctx, &last, nil, nil, nil); err != nil {
		return err
	}
	if err := a.commit(ctx, &fx, next); err != nil {
		return err
	}
	a.open = false
	fx.add(a.openFx)
	a.openFx = effects{}
	a.committed(txs, next, &fx)
	return nil
}

// flushPart writes the side effects of one part within the open transaction.
func (a *Applier) flushPart(ctx context.Context, fx *effects) error {
	if err := a.spill(ctx, fx); err != nil {
		return err
	}
	if len(fx.told) > 0 && len(a.openFx.told) < 100 {
		a.openFx.told = append(a.openFx.told, fx.told[0])
	}
	a.openFx.pushback = append(a.openFx.pushback, fx.pushback...)
	a.openFx.rows += fx.rows
	return nil
}

// back returns to a savepoint, which stays.
func (a *Applier) back(ctx context.Context, savepoint string) error {
	_, err := a.conn.Exec(ctx, "rollback to savepoint "+savepoint)
	return err
}
