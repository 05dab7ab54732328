package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// stateOther is the SQLSTATE of changes that wait for a table which was dropped since, and made
// anew under the same name. Nobody but an operator knows whether they belong to the new one.
const stateOther = "PW004"

// fits looks, without a transaction id, whether the table of a change is here and takes it.
func (r *Retrier) fits(ctx context.Context, id int64) error {
	changes, err := parked.Read(ctx, r.a.conn, []int64{id})
	if err != nil || len(changes) == 0 {
		return err
	}
	var del *cascadeError
	if _, err = r.fit(ctx, changes[0]); errors.Is(err, errNoneLeft) || errors.As(err, &del) {
		return nil
	}
	return err
}

func stateOf(err error) string {
	if err == nil {
		return ""
	}
	var p *stillParked
	if errors.As(err, &p) {
		return p.why.state
	}
	return parkState(err)
}

// stillParked says that a parked change would have to be parked again.
type stillParked struct {
	why   reason
	lacks bool // values, which others are to be asked for
}

func (e *stillParked) Error() string { return e.why.message }

// try applies parked changes in one transaction, under the checkpoint as it stands, and
// returns how many. An error means that nothing was done.
func (r *Retrier) try(ctx context.Context, ids []int64, wanted bool) (int, error) {
	a := r.a
	a.barrier, a.overdue, a.plain = false, false, true
	defer func() { a.barrier, a.overdue, a.plain = false, false, false }()
	var p patience
	var cascade *cascadeError
	a.cascades, a.stamping = nil, stamping{}
	if a.cfg.Self && a.cfg.WaitStamped != nil && len(ids) > 1 {
		// What many of them meet was hardly written by what is stamped already.
		if err := r.stamped(ctx); err != nil {
			return 0, err
		}
	}
	for {
		n, err := r.attempt(ctx, ids, wanted)
		if err == nil {
			return n, nil
		}
		if rerr := a.rollback(ctx); rerr != nil {
			return 0, errors.Join(err, rerr)
		}
		switch {
		case ctx.Err() != nil:
			return 0, err
		case errors.Is(err, errBarrier):
			if err := a.waitBarrier(ctx); err != nil {
				return 0, err
			}
		case errors.Is(err, errNotStamped):
			if err := r.stamped(ctx); err != nil {
				return 0, err
			}
		case errors.As(err, &cascade):
			if err := a.cascade(ctx, cascade); err != nil {
				return 0, err
			}
		case causeOf(err) == causePlans && p.left(err):
			if err := a.forgetPlans(ctx); err != nil {
				return 0, err
			}
			a.forgetSchemas()
		default:
			return 0, err
		}
	}
}

// stamped waits until own changes are stamped. Where that has to wait for the self-merge, or would take long, nothing can be
// tried now.
func (r *Retrier) stamped(ctx context.Context) error {
	err := r.a.waitStamped(ctx)
	if errors.Is(err, tombstone.ErrStalled) || errors.Is(err, tombstone.ErrFarBehind) {
		return &stillParked{why: unsure}
	}
	return err
}

func (r *Retrier) attempt(ctx context.Context, ids []int64, wanted bool) (int, error) {
	a := r.a
	if a.cfg.Self {
		if err := a.awaitCommits(ctx); err != nil {
			return 0, err
		}
	}
	if err := a.takeTurn(ctx, taker{}); err != nil {
		return 0, err
	}
	b := pipeline{fence: -1}
	if err := a.begin(ctx, &b); err != nil {
		return 0, err
	}
	b.text(a.setLock(time.Second))
	if err := a.run(ctx, &b, nil, nil, nil); err != nil {
		return 0, err
	}
	changes, err := parked.Claim(ctx, a.conn, a.cfg.Origin, ids)
	if err != nil {
		return 0, err
	}
	if len(changes) == 0 {
		return 0, a.rollback(ctx)
	}
	a.retryID = changes[0].ID
	defer func() { a.retryID = 0 }()
	a.heldHere = map[*wal.Transaction]bool{}
	a.cameAs = map[*wal.Transaction]*wal.Relation{}
	defer func() { a.heldHere, a.cameAs = nil, nil }()
	var fx effects
	txs, err := r.fitting(ctx, changes, wanted, &fx)
	if err != nil {
		return 0, err
	}
	next := checkpoint.Checkpoint{}
	claimed := make([]int64, len(changes))
	for i, c := range changes {
		next.EndLSN = max(next.EndLSN, c.Transaction.CommitLSN)
		claimed[i] = c.ID
	}
	// A change must not count as waiting while it is being decided.
	if _, err := a.conn.Exec(ctx, parked.DeleteSQL, claimed); err != nil {
		return 0, fmt.Errorf("take parked changes out: %w", err)
	}
	if err := r.decide(ctx, changes, txs, &fx); err != nil {
		return 0, err
	}
	if err := a.commit(ctx, &fx, next); err != nil {
		return 0, err
	}
	fx.unpark = append(fx.unpark, claimed...)
	a.committed(nil, a.cp, &fx)
	return len(changes), nil
}

// fitting returns what is to be applied of parked changes: all but those of which nothing is left. It
// notes which of them are held here, and which tables are to be copied behind them.
func (r *Retrier) fitting(ctx context.Context, changes []*parked.Change, wanted bool, fx *effects) ([]keyedTx, error) {
	txs := make([]keyedTx, 0, len(changes))
	for _, c := range changes {
		was, stamp := c.Transaction.Changes[0].Relation, c.Transaction.Changes[0].Stamp
		t, err := r.fit(ctx, c)
		if del := (*cascadeError)(nil); errors.As(err, &del) && r.a.cfg.Ordinary == nil {
			if err = r.deleteHere(ctx, del); err == nil {
				err = errNoneLeft
			}
		}
		if errors.Is(err, errNoneLeft) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !wanted && c.Table != 0 && c.Table != t.schema.oid {
			return nil, &stillParked{why: reason{stateOther, "the table was made anew since: ask for a retry if the change belongs to the new one, or discard it"}}
		}
		txs = append(txs, keyedTx{tx: c.Transaction, kind: c.Kind})
		anew := r.stampedAnew(c, was, t) || r.lackedStamp(c) || c.State == stateOtherStamp && c.Transaction.Changes[0].Stamp != stamp
		if anew || c.State == stateSwapped {
			fx.copies(t.schema.name)
		}
		if r.a.cfg.Self && c.Came != nil && c.Came.Ref() != c.Waiting.Relation.Ref() {
			r.a.cameAs[c.Transaction] = c.Came
		}
		r.a.heldHere[c.Transaction] = c.Waiting.Held || anew && !r.a.cfg.Self
	}
	return txs, nil
}

// decide applies what is left of parked changes.
func (r *Retrier) decide(ctx context.Context, changes []*parked.Change, txs []keyedTx, fx *effects) error {
	a := r.a
	if r.together {
		a.together = &together{}
		defer func() { a.together = nil }()
	}
	gone := len(txs) == 0
	if len(changes) == 1 && !gone {
		var err error
		if gone, err = a.nowhere(ctx, &changes[0].Transaction.Changes[0], &pgconn.PgError{Code: changes[0].State}); err != nil {
			return err
		}
	}
	if !gone {
		if err := a.set(ctx, &pipeline{fence: -1}, txs, fx); err != nil {
			return err
		}
	}
	if r.together {
		return a.runTogether(ctx)
	}
	return nil
}
