package apply

import (
	"context"
	"errors"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// set applies transactions set-based. b holds what goes first.
//
// A table that has several groups gets them one after the other, in waves: what one group
// buries, the next one has to find.
func (a *Applier) set(ctx context.Context, b *pipeline, txs []keyedTx, fx *effects) error {
	if err := a.askKeys(ctx, txs); err != nil {
		return err
	}
	a.batch.Reset()
	for _, k := range txs {
		a.batch.AddPicked(k.tx, k.kind, k.places)
	}
	groups := a.batch.Groups
	a.childrenFirst(ctx, groups)
	all := groups
	for {
		n := wave(groups)
		if err := a.wave(ctx, b, groups[:n], fx); err != nil {
			return err
		}
		if groups = groups[n:]; len(groups) == 0 {
			break
		}
		if err := a.spill(ctx, fx); err != nil {
			return err
		}
		b = &pipeline{fence: -1}
	}
	for _, g := range all {
		if err := a.checkDeferred(ctx, g); err != nil {
			return err
		}
	}
	return failpoint.Hit("apply_after_dml")
}

// wave is how many groups, from the first, belong to different tables.
func wave(groups []*batch.Group) int {
	seen := make(map[wal.RelationName]bool, len(groups))
	for n, g := range groups {
		if seen[g.Rel.Ref()] {
			return n
		}
		seen[g.Rel.Ref()] = true
	}
	return len(groups)
}

// wave applies groups of different tables: the fast statements in one round trip, then what
// they left alone.
func (a *Applier) wave(ctx context.Context, b *pipeline, groups []*batch.Group, fx *effects) error {
	var stmts []fastStmt
	left := map[*batch.Group][]int{}
	keep := func(st fastStmt, runs []int) error {
		left[st.group] = append(left[st.group], runs...)
		return nil
	}
	slow := map[*batch.Group][]int{}
	a.hasten(b)
	a.lockDeferred(ctx, b, groups)
	for _, g := range groups {
		a.truncates(g, fx)
		t, err := a.target(ctx, g.Rel)
		if err != nil {
			if err := a.send(ctx, &b, &stmts, keep, fx); err != nil {
				return err
			}
			if done, perr := a.parkMissing(ctx, g, err, fx); perr != nil {
				return perr
			} else if !done {
				return err
			}
			continue
		}
		if t.keyless() {
			if err := a.send(ctx, &b, &stmts, keep, fx); err != nil {
				return err
			}
			if err := a.exact(ctx, g, t, fx); err != nil {
				return err
			}
			continue
		}
		p := a.plan(g, t)
		if len(p.record) > 0 {
			if err := a.send(ctx, &b, &stmts, keep, fx); err != nil {
				return err
			}
			if p.slow, err = a.writeDown(ctx, g, p.record, p.slow); err != nil {
				return err
			}
		}
		if a.mayCopy(g, t, p.insert) {
			if err := a.send(ctx, &b, &stmts, keep, fx); err != nil {
				return err
			}
			ok, err := a.copyIn(ctx, g, t, p.insert)
			if err != nil {
				return err
			}
			if ok {
				for _, i := range p.insert {
					a.fastDone(fastStmt{op: wal.Insert, group: g, t: t}, i, fx)
				}
				p.insert = nil
			}
		}
		st, err := a.queue(ctx, b, g, t, p)
		if err != nil {
			return err
		}
		stmts = append(stmts, st...)
		slow[g] = p.slow
	}
	looks, barrier := a.lookAhead(ctx, b, groups, slow)
	if barrier != nil && !errors.Is(barrier, errBarrier) {
		return barrier
	}
	if err := a.run(ctx, b, stmts, keep, a.doneInto(fx)); err != nil {
		return err
	}
	if err := failpoint.Hit("apply_after_first_dml"); err != nil {
		return err
	}
	// What needs a barrier is found for all tables at once: one wait for all of them.
	var open []*looking
	for _, l := range looks {
		err := a.closeLook(ctx, l)
		if errors.Is(err, errBarrier) {
			barrier = err
			continue
		}
		if err != nil {
			return err
		}
		l.t.learn(sizeOf(l.states), len(l.runs))
		open = append(open, l)
	}
	if err := a.settle(ctx, open, fx); errors.Is(err, errBarrier) {
		barrier = err
	} else if err != nil {
		return err
	}
	for _, g := range groups {
		runs := append(left[g], slow[g]...)
		if len(runs) == 0 {
			continue
		}
		t, err := a.target(ctx, g.Rel)
		if err != nil {
			return err
		}
		if err := a.resolve(ctx, g, t, runs, fx); errors.Is(err, errBarrier) {
			barrier = err
		} else if err != nil {
			return err
		}
	}
	return barrier
}

// lookAhead queues the looks at what needs a decision behind the fast statements, so that all
// tables share a round trip, and takes those runs off slow. Where a trigger of one table may
// write to another one, each table is looked at by itself, when those before it are written. An
// errBarrier is for later: the other tables are announced all the same.
func (a *Applier) lookAhead(ctx context.Context, b *pipeline, groups []*batch.Group, slow map[*batch.Group][]int) (looks []*looking, barrier error) {
	if !a.cfg.Replica || a.cfg.Self || a.together != nil {
		return nil, nil
	}
	rows, size := 0, 0
	for _, g := range groups {
		if len(slow[g]) == 0 {
			continue
		}
		t := a.targets[g.Rel]
		if t == nil || t.schema.fires || t.rowBytes == 0 && len(slow[g]) > firstChunk {
			return nil, nil
		}
		rows += len(slow[g])
		size += len(slow[g]) * t.rowBytes
		for _, i := range slow[g] {
			size += g.Runs[i].Image.Size()
		}
	}
	if rows == 0 || rows > chunkRows || size > chunkBytes {
		return nil, nil
	}
	for _, g := range groups {
		if len(slow[g]) == 0 {
			continue
		}
		l, err := a.prepareLook(ctx, g, a.targets[g.Rel], slow[g])
		slow[g] = nil
		if errors.Is(err, errBarrier) {
			barrier = err
			continue
		}
		if err == nil {
			err = a.queueLook(ctx, b, l)
		}
		if err != nil {
			return nil, err
		}
		looks = append(looks, l)
	}
	return looks, barrier
}

// send runs what is queued and begins a new pipeline.
func (a *Applier) send(ctx context.Context, b **pipeline, stmts *[]fastStmt, keep func(fastStmt, []int) error, fx *effects) error {
	err := a.run(ctx, *b, *stmts, keep, a.doneInto(fx))
	*stmts, *b = nil, &pipeline{fence: -1}
	return err
}

// spill writes the side effects gathered so far, within the transaction, so that what follows
// in it finds them.
func (a *Applier) spill(ctx context.Context, fx *effects) error {
	if err := a.writeEffects(ctx, fx); err != nil {
		return err
	}
	fx.entries, fx.items = nil, nil
	a.cfg.Parked.Add(a.cfg.Origin, -int64(len(fx.unpark)))
	fx.unpark = nil
	fx.audit, fx.tell, fx.size = nil, told{}, 0
	return nil
}

// spillBytes is how much of side effects is gathered in memory.
const spillBytes = 4 << 20

// spillLarge writes the side effects gathered so far when they are large.
func (a *Applier) spillLarge(ctx context.Context, fx *effects) error {
	if fx.size+fx.tell.size < spillBytes {
		return nil
	}
	return a.spill(ctx, fx)
}

func (a *Applier) doneInto(fx *effects) func(fastStmt, int) {
	return func(st fastStmt, i int) { a.fastDone(st, i, fx) }
}

// truncates notes truncates, which are never applied across regions.
func (a *Applier) truncates(g *batch.Group, fx *effects) {
	for _, tx := range g.Truncs {
		side := conflict.Side{Known: true, Stamp: wal.Stamp{UpdatedAt: tx.CommitTime}}
		a.conflict(fx, g.Rel, a.plainRecord(g.Rel, conflict.Truncate, "truncate", tx, side), wal.Entry{Known: true, Stamp: side.Stamp}, wal.Entry{})
	}
}
