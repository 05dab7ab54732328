package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// hopeless is how many changes of one table must fail in a row, within one batch, before the
// rest of the table's changes in the batch is parked without being tried; so it is when twenty
// times as many fail among others. They are tried in the background then, and hold up nothing.
const hopeless = 50

// oneByOne finds the changes of a batch that fail, parks them, and lets all others through.
//
// Constraints that may be deferred are deferred and checked at the end of each transaction,
// behind a savepoint, so that COMMIT finds nothing that is not known by then.
type oneByOne struct {
	a *Applier
	// strict: the constraints must hold behind each change.
	strict bool
	// careful: the changes are tried one by one from the beginning, so that the one that ends
	// the session is known.
	careful bool
	failed  map[wal.RelationName]failures
}

// failures are those of one table within a batch.
type failures struct {
	row   int    // since its last success
	total int    // in all
	state string // of the last one
}

// hopeless reports whether the rest of the table's changes is to be parked without a try.
func (f failures) hopeless() bool { return f.row >= hopeless || f.total >= 20*hopeless }

// ordered applies transactions one after the other, each behind a savepoint: set-based first,
// and where that fails in halves, down to single changes in the origin's order. A change that
// fails by itself is parked; everything else goes on.
func (a *Applier) ordered(ctx context.Context, txs []keyedTx, fx *effects) error {
	if err := a.simple(ctx, "set constraints all deferred"); err != nil {
		return err
	}
	if a.impatient {
		if err := a.simple(ctx, a.setLock(singleLock)); err != nil {
			return err
		}
	}
	if a.cfg.Self {
		if err := a.askKeys(ctx, txs); err != nil {
			return err
		}
		whole := make([]*wal.Transaction, len(txs))
		for i, k := range txs {
			whole[i] = k.tx
		}
		a.batch.Lasts = batch.LastsOf(whole)
		defer func() { a.batch.Lasts = nil }()
	}
	o := oneByOne{a: a, failed: map[wal.RelationName]failures{}}
	o.careful, o.strict = a.cfg.Suspects.care(a.cp, partOf(txs))
	for _, k := range txs {
		if err := o.transaction(ctx, k, fx); err != nil {
			return err
		}
	}
	return nil
}

func (o *oneByOne) transaction(ctx context.Context, k keyedTx, fx *effects) error {
	if o.careful && o.strict {
		return o.halves(ctx, k, fx)
	}
	if !o.careful {
		err := o.try(ctx, k, fx, true)
		if err == nil || !o.a.setAside(err) {
			return err
		}
	}
	o.strict = false
	var mine effects
	err := o.a.behindSavepoint(ctx, "tx", func() error {
		if err := o.halves(ctx, k, &mine); err != nil {
			return err
		}
		return o.a.checkConstraints(ctx)
	})
	if err == nil {
		fx.add(mine)
		return nil
	}
	if !o.a.setAside(err) {
		return err
	}
	// A deferred constraint does not hold at the end: each change has to satisfy it.
	o.strict = true
	return o.halves(ctx, k, fx)
}

// try applies changes of one transaction set-based, behind a savepoint. What it wrote beside
// the rows is in the tables when it returns, so that the next change finds it.
func (o *oneByOne) try(ctx context.Context, k keyedTx, fx *effects, check bool) error {
	var mine effects
	err := o.a.behindSavepoint(ctx, "try", func() error {
		if err := o.a.set(ctx, &pipeline{fence: -1}, []keyedTx{k}, &mine); err != nil {
			return err
		}
		if check {
			if err := o.a.checkConstraints(ctx); err != nil {
				return err
			}
		}
		return o.a.spill(ctx, &mine)
	})
	if err == nil {
		fx.add(mine)
	}
	return err
}

// halves applies the changes of a transaction that failed as a whole.
func (o *oneByOne) halves(ctx context.Context, k keyedTx, fx *effects) error {
	good, bad := o.hopeless(k)
	if len(bad) > 0 {
		if err := o.parkUntried(ctx, k, bad, fx); err != nil {
			return err
		}
	}
	switch n := len(good); n {
	case 0:
		return nil
	case 1:
		one := k.pick(good)
		if o.a.cfg.Suspects.convicted(placeOf(one, 0)) {
			return o.a.parkTransaction(ctx, one, endedReason(), fx)
		}
		return o.single(ctx, one, fx)
	default:
		if err := o.half(ctx, k.pick(good[:n/2]), fx); err != nil {
			return err
		}
		return o.half(ctx, k.pick(good[n/2:]), fx)
	}
}

func (o *oneByOne) half(ctx context.Context, k keyedTx, fx *effects) error {
	if len(k.tx.Changes) > 1 && !o.careful {
		err := o.try(ctx, k, fx, o.strict)
		if err == nil {
			o.succeeded(k.tx.Changes)
			return nil
		}
		if !o.a.setAside(err) {
			return err
		}
	}
	return o.halves(ctx, k, fx)
}

func (o *oneByOne) succeeded(changes []wal.Change) {
	for i := range changes {
		if f, ok := o.failed[changes[i].Relation.Ref()]; ok {
			f.row = 0
			o.failed[changes[i].Relation.Ref()] = f
		}
	}
}

// hopeless sorts the changes of tables that fail again and again from the others.
func (o *oneByOne) hopeless(k keyedTx) (good, bad []int) {
	for i := range k.tx.Changes {
		if o.failed[k.tx.Changes[i].Relation.Ref()].hopeless() {
			bad = append(bad, i)
		} else {
			good = append(good, i)
		}
	}
	return good, bad
}

// parkUntried parks changes whose tables are hopeless, by table, under the state that the ones
// before them failed with.
func (o *oneByOne) parkUntried(ctx context.Context, k keyedTx, positions []int, fx *effects) error {
	states := map[string][]int{}
	for _, i := range positions {
		s := o.failed[k.tx.Changes[i].Relation.Ref()].state
		states[s] = append(states[s], i)
	}
	for _, s := range slices.Sorted(maps.Keys(states)) {
		why := reason{s, "not tried: the changes of this table before it all failed"}
		if err := o.a.parkTransaction(ctx, k.pick(states[s]), why, fx); err != nil {
			return err
		}
	}
	return nil
}

// single applies one change, or parks it.
func (o *oneByOne) single(ctx context.Context, k keyedTx, fx *effects) error {
	var last error
	o.a.plain = true
	o.a.cfg.Suspects.take(placeOf(k, 0))
	o.a.inHand = true
	defer func() { o.a.plain, o.a.inHand = false, o.a.conn.IsClosed() }()
	// Twice: a local writer may come between the look and the write, and a table may have
	// been changed.
	for range 2 {
		if last = o.try(ctx, k, fx, o.strict); last == nil {
			o.succeeded(k.tx.Changes)
			return nil
		}
		if !o.a.setAside(last) {
			return last
		}
	}
	if gone, err := o.a.nowhere(ctx, &k.tx.Changes[0], last); err != nil {
		return err
	} else if gone {
		return o.a.releaseNowhere(ctx, k, fx)
	}
	weight := 1
	switch causeOf(last) {
	case causeAgain:
		weight = hopeless / 5 // each of these has waited
		o.a.hurry = time.Now().Add(hurryFor)
	case causeServer:
		weight = hopeless / 5 // likely it is so for all of them
	}
	f := o.failed[k.tx.Changes[0].Relation.Ref()]
	o.failed[k.tx.Changes[0].Relation.Ref()] = failures{f.row + weight, f.total + weight, parkState(last)}
	return o.a.parkChange(ctx, k, last, fx)
}

// setAside reports whether a change that fails with err is to be parked rather than to be
// tried again with the whole batch.
func (a *Applier) setAside(err error) bool {
	switch causeOf(err) {
	case causeRow:
		return true
	case causeAgain, causePlans, causeServer:
		return a.impatient
	}
	return errors.Is(err, errRace)
}

// checkConstraints raises now what deferred constraints would raise at COMMIT.
func (a *Applier) checkConstraints(ctx context.Context) error {
	return a.simple(ctx, "set constraints all immediate; set constraints all deferred")
}

// behindSavepoint runs f and undoes what it did if it fails.
func (a *Applier) behindSavepoint(ctx context.Context, name string, f func() error) error {
	if err := a.simple(ctx, "savepoint "+name); err != nil {
		return err
	}
	hasty := a.hasty
	err := f()
	if err == nil {
		return a.simple(ctx, "release savepoint "+name)
	}
	if a.conn.IsClosed() || ctx.Err() != nil {
		return err
	}
	a.cfg.Index.Doubt(a.holder())
	a.hasty = hasty // settings of the transaction go back as well
	// Released as well, so that savepoints do not nest deeper with every failure.
	if berr := a.simple(ctx, "rollback to savepoint "+name+"; release savepoint "+name); berr != nil {
		return errors.Join(err, berr)
	}
	if causeOf(err) == causePlans {
		// A trigger may have dropped them: what goes on in this transaction needs them again.
		if ferr := a.forgetPlans(ctx); ferr != nil {
			return errors.Join(err, ferr)
		}
	}
	return err
}

// simple runs statements without parameters in one round trip.
func (a *Applier) simple(ctx context.Context, sql string) error {
	a.cfg.Batches.moved(a.holder())
	if _, err := a.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("run %q: %w", sql, err)
	}
	return nil
}
