package apply

import (
	"context"
	"errors"
	"slices"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// wave is groups of different tables that are applied together: the fast statements in one
// round trip, then what they left alone.
type wave struct {
	a       *Applier
	b       *pipeline // what is queued: first what goes before the wave
	groups  []*batch.Group
	fx      *effects
	stmts   []fastStmt             // those in b
	left    map[*batch.Group][]int // runs that fast statements left alone
	slow    map[*batch.Group][]int // runs that need a decision from the start
	barrier error                  // an errBarrier: it is for the end, when all tables are announced
}

func (w *wave) apply(ctx context.Context) error {
	clear(w.a.written)
	w.a.hasten(w.b)
	w.a.lockDeferred(ctx, w.b, w.groups)
	for _, g := range w.groups {
		if len(g.Truncs) > 0 && w.a.cfg.Self {
			if err := w.send(ctx); err != nil {
				return err
			}
		}
		if err := w.a.truncates(ctx, g, w.fx); err != nil {
			return err
		}
		if err := w.begin(ctx, g); err != nil {
			return err
		}
	}
	looks, err := w.lookAhead(ctx)
	if err != nil {
		return err
	}
	if err := w.send(ctx); err != nil {
		return err
	}
	if err := failpoint.Hit("apply_after_first_dml"); err != nil {
		return err
	}
	if err := w.settle(ctx, looks); err != nil {
		return err
	}
	if err := w.resolve(ctx); err != nil {
		return err
	}
	if w.barrier != nil {
		return w.barrier
	}
	return w.a.stayed(ctx)
}

// begin queues the fast statements of a group. What cannot wait for the others is done at once,
// behind what is queued so far.
func (w *wave) begin(ctx context.Context, g *batch.Group) error {
	a := w.a
	if !a.retrying && g.Kind != conflict.Repair { // a repair comes in the shape of what it answers
		a.cfg.Suspects.shapes.see(g.Rel) // each time: a batch that is tried again begins with older ones
	}
	if !a.retrying {
		a.cfg.Suspects.columns.See(g.Rel)
	}
	t, err := a.target(ctx, g.Rel)
	if err == nil {
		err = a.unnumbered(g.Rel, t)
	}
	if err != nil {
		return w.missing(ctx, g, err)
	}
	if t.keyless() {
		if err := w.send(ctx); err != nil {
			return err
		}
		return a.exact(ctx, g, t, w.fx)
	}
	p := a.plan(g, t)
	if len(p.record) > 0 {
		if err := w.send(ctx); err != nil {
			return err
		}
		if p.slow, err = a.writeDown(ctx, g, t, p.record, p.slow); err != nil {
			return err
		}
	}
	if a.mayCopy(g, t, p.insert) {
		if err := w.copyIn(ctx, g, t, &p); err != nil {
			return err
		}
	}
	stmts, err := a.queue(ctx, w.b, g, t, p)
	if err != nil {
		return err
	}
	w.stmts = append(w.stmts, stmts...)
	w.slow[g] = p.slow
	return nil
}

// missing deals with a group whose table cannot be written, for the reason err.
func (w *wave) missing(ctx context.Context, g *batch.Group, err error) error {
	if err := w.send(ctx); err != nil {
		return err
	}
	if done, perr := w.a.parkMissing(ctx, g, err, w.fx); perr != nil {
		return perr
	} else if !done {
		return err
	}
	return nil
}

// copyIn puts in the new rows of a group by COPY; if it finds that it cannot, they stay in p.
func (w *wave) copyIn(ctx context.Context, g *batch.Group, t *target, p *plan) error {
	if err := w.send(ctx); err != nil {
		return err
	}
	ok, err := w.a.copyIn(ctx, g, t, p.insert)
	if err != nil || !ok {
		return err
	}
	for _, i := range p.insert {
		w.a.fastDone(fastStmt{op: wal.Insert, group: g, t: t}, i, w.fx)
	}
	p.insert = nil
	return nil
}

// settle decides what was looked at. What needs a barrier is found for all tables at once: one
// wait for all of them.
func (w *wave) settle(ctx context.Context, looks []*looking) error {
	var open []*looking
	for _, l := range looks {
		err := w.a.closeLook(ctx, l)
		if errors.Is(err, errBarrier) {
			w.barrier = err
			continue
		}
		if err != nil {
			return err
		}
		l.t.learn(sizeOf(l.states), len(l.runs))
		open = append(open, l)
	}
	return w.later(w.a.settle(ctx, open, w.fx))
}

// resolve decides the rest, a table at a time. Deletes of rows that others may have stopped referencing
// in the same transaction come last.
func (w *wave) resolve(ctx context.Context) error {
	last := map[*batch.Group][]int{}
	for _, g := range w.groups {
		runs := append(w.left[g], w.slow[g]...)
		if len(runs) == 0 {
			continue
		}
		t, err := w.a.target(ctx, g.Rel)
		if err != nil {
			return err
		}
		runs, last[g] = w.partings(g, t, runs)
		if err := w.resolveRuns(ctx, g, runs); err != nil {
			return err
		}
	}
	for _, g := range w.groups {
		if err := w.resolveRuns(ctx, g, last[g]); err != nil {
			return err
		}
	}
	return nil
}

func (w *wave) resolveRuns(ctx context.Context, g *batch.Group, runs []int) error {
	if len(runs) == 0 {
		return nil
	}
	t, err := w.a.target(ctx, g.Rel)
	if err != nil {
		return err
	}
	return w.later(w.a.resolve(ctx, g, t, runs, w.fx))
}

// partings sorts out the deletes that have to wait for the other tables of the wave: where foreign
// keys are enforced for applied rows, a row whose key was changed is deleted when those that
// referenced it reference the new one. Where the new row clashes with the old one by a second
// unique key, nothing can wait.
func (w *wave) partings(g *batch.Group, t *target, runs []int) (now, last []int) {
	if w.a.cfg.Replica || w.a.cfg.Self || !t.schema.parent || len(w.groups) < 2 && !t.schema.itself() {
		return runs, nil
	}
	if slices.ContainsFunc(w.left[g], func(i int) bool { return g.Runs[i].Op == wal.Insert }) {
		return runs, nil
	}
	for _, i := range runs {
		if g.Runs[i].Op == wal.Delete {
			last = append(last, i)
		} else {
			now = append(now, i)
		}
	}
	return now, last
}

// later keeps an errBarrier for the end and returns any other error.
func (w *wave) later(err error) error {
	if errors.Is(err, errBarrier) {
		w.barrier = err
		return nil
	}
	return err
}

// lookAhead queues the looks at what needs a decision behind the fast statements, so that all
// tables share a round trip, and takes those runs off slow. Where a trigger of one table may
// write to another one, each table is looked at by itself, when those before it are written. An
// errBarrier is for later: the other tables are announced all the same.
func (w *wave) lookAhead(ctx context.Context) (looks []*looking, err error) {
	a, slow := w.a, w.slow
	if !a.cfg.Replica || a.cfg.Self || a.together != nil {
		return nil, nil
	}
	rows, size := 0, 0
	for _, g := range w.groups {
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
	for _, g := range w.groups {
		if len(slow[g]) == 0 {
			continue
		}
		l, err := a.prepareLook(ctx, g, a.targets[g.Rel], slow[g])
		slow[g] = nil
		if errors.Is(err, errBarrier) {
			w.barrier = err
			continue
		}
		if err == nil {
			err = a.queueLook(ctx, w.b, l)
		}
		if err != nil {
			return nil, err
		}
		looks = append(looks, l)
	}
	return looks, nil
}

// send runs what is queued and begins a new pipeline.
func (w *wave) send(ctx context.Context) error {
	var partly []fastStmt
	keep := func(st fastStmt, runs []int) error {
		if st.put > 0 {
			partly = append(partly, st)
		} else {
			w.left[st.group] = append(w.left[st.group], runs...)
		}
		return nil
	}
	var over []putRow
	note := w.a.doneInto(w.fx)
	err := w.a.run(ctx, w.b, w.stmts, keep, func(st fastStmt, i int) {
		if st.op != wal.Insert {
			over = append(over, putRow{g: st.group, i: i})
		}
		note(st, i)
	})
	w.stmts, w.b = nil, &pipeline{fence: -1}
	if err != nil {
		return err
	}
	for _, st := range partly {
		left, err := w.a.partly(ctx, st, w.fx)
		if err != nil {
			return err
		}
		w.left[st.group] = append(w.left[st.group], left...)
	}
	return w.a.unlifted(ctx, over)
}

func (a *Applier) doneInto(fx *effects) func(fastStmt, int) {
	return func(st fastStmt, i int) { a.wrote(st, i); a.fastDone(st, i, fx) }
}
