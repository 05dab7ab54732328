package apply

import (
	"context"
	"errors"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// partBarrier bounds the wait for own changes while a giant transaction holds locks.
const partBarrier = 2 * time.Second

// ordered applies transactions one after the other, each behind a savepoint: set-based first,
// and where that fails change by change in the origin's order. A change that fails by itself
// is parked with its key; everything else goes on.
func (a *Applier) ordered(ctx context.Context, txs []keyedTx, fx *effects) error {
	for _, k := range txs {
		var mine effects
		err := a.behindSavepoint(ctx, "tx", func() error {
			return a.set(ctx, &pipeline{fence: -1}, []keyedTx{k}, &mine)
		})
		if err == nil {
			fx.add(mine)
			continue
		}
		if !rowError(err) && !errors.Is(err, errRace) {
			return err
		}
		for i := range k.tx.Changes {
			if err := a.single(ctx, k, i, fx); err != nil {
				return err
			}
		}
	}
	return nil
}

// single applies one change, or parks it.
func (a *Applier) single(ctx context.Context, k keyedTx, i int, fx *effects) error {
	one := *k.tx
	one.Changes = k.tx.Changes[i : i+1 : i+1]
	var last error
	// Twice: a local writer may come between the look and the write.
	for range 2 {
		var mine effects
		last = a.behindSavepoint(ctx, "one", func() error {
			a.plain = true
			defer func() { a.plain = false }()
			return a.set(ctx, &pipeline{fence: -1}, []keyedTx{{&one, k.kind}}, &mine)
		})
		if last == nil {
			fx.add(mine)
			return nil
		}
		if !rowError(last) && !errors.Is(last, errRace) {
			return last
		}
	}
	return a.parkChange(ctx, k, &one, last, fx)
}

// behindSavepoint runs f and undoes what it did if it fails.
func (a *Applier) behindSavepoint(ctx context.Context, name string, f func() error) error {
	if _, err := a.conn.Exec(ctx, "savepoint "+name); err != nil {
		return err
	}
	err := f()
	if err == nil {
		_, err = a.conn.Exec(ctx, "release savepoint "+name)
		return err
	}
	if a.conn.IsClosed() || ctx.Err() != nil {
		return err
	}
	if berr := a.back(ctx, name); berr != nil {
		return errors.Join(err, berr)
	}
	return err
}

// parkChange sets one change aside.
func (a *Applier) parkChange(ctx context.Context, k keyedTx, one *wal.Transaction, cause error, fx *effects) error {
	b := batch.New()
	b.Add(one, k.kind)
	g := b.Groups[0]
	state := sqlState(cause)
	if state == "" {
		state = "XX000"
		var se *stampError
		if errors.As(cause, &se) {
			state = "PW001" // trigger interference
		}
	}
	if len(g.Exact) > 0 {
		return a.parkExact(ctx, g, one, state, publicError(cause))
	}
	if len(g.Runs) == 0 {
		return nil
	}
	r := &g.Runs[0]
	if err := a.park(ctx, g, r, g.KeyText(r), state, publicError(cause)); err != nil {
		return err
	}
	if typ := conflictType(state); typ != "" && !a.cfg.Self {
		fx.audit = append(fx.audit, a.parkedRecord(g, r, typ, state))
	}
	return nil
}

// conflictType names the conflict that a parked change stands for, if it is one.
func conflictType(state string) conflict.Type {
	switch state {
	case "23505":
		return conflict.UpdateExists
	}
	return ""
}
