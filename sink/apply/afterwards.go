package apply

import (
	"context"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What a statement returns is the row before AFTER triggers run. One that fires for applied rows may
// change the row again, put a deleted one back or take one away, and nobody would publish that: the
// regions would differ. So where a table has such a trigger, the rows are read once more behind it;
// one that is deferred to the end of the transaction is fired before.

// written is what a wave has written to a table that has AFTER triggers.
type written struct {
	t         *target
	put, gone []int // runs
}

// wrote notes a run that a statement wrote.
func (a *Applier) wrote(st fastStmt, i int) {
	if !st.t.schema.after {
		return
	}
	w := a.written[st.group]
	if w == nil {
		w = &written{t: st.t}
		if a.written == nil {
			a.written = map[*batch.Group]*written{}
		}
		a.written[st.group] = w
	}
	if st.op == wal.Delete {
		w.gone = append(w.gone, i)
	} else {
		w.put = append(w.put, i)
	}
}

// stayed makes sure that the rows are as they were written.
func (a *Applier) stayed(ctx context.Context) error {
	defer clear(a.written)
	for g, w := range a.written {
		if err := a.fireLate(ctx, w.t); err != nil {
			return err
		}
		gone := slices.DeleteFunc(slices.Clone(w.gone), func(i int) bool { return slices.Contains(w.put, i) })
		for runs := range slices.Chunk(append(gone, w.put...), chunkRows) {
			states := make([]known, len(runs))
			if err := a.lockRows(ctx, g, w.t, runs, states); err != nil {
				return err
			}
			for n, i := range runs {
				if err := a.same(ctx, g, w.t, i, states[n].row); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fireLate fires the triggers of a table that wait for the end of the transaction, now and from now on.
func (a *Applier) fireLate(ctx context.Context, t *target) error {
	if len(t.schema.late) == 0 {
		return nil
	}
	return a.simple(ctx, "set constraints "+strings.Join(t.schema.late, ", ")+" immediate")
}

// stayedAt makes sure that a row without a key is as it was written: no other version of it is there.
func (a *Applier) stayedAt(ctx context.Context, t *target, place [][]byte) error {
	if err := a.fireLate(ctx, t); err != nil {
		return err
	}
	found := false
	err := a.query(ctx, statement.AtPlace(t.shape), place, []int16{1}, func([][]byte) { found = true })
	if err == nil && !found {
		err = &valueError{name: t.rel.Ref()}
	}
	return err
}

// same holds the row that is there now against the one that a run has written.
func (a *Applier) same(ctx context.Context, g *batch.Group, t *target, i int, row wal.Tuple) error {
	if (g.Runs[i].Op == wal.Delete) != (row == nil) {
		return &valueError{name: g.Rel.Ref()}
	}
	if row == nil {
		return nil
	}
	image, err := a.textImage(ctx, g, t, i)
	if err != nil {
		return err
	}
	for _, c := range t.insert {
		var stored []byte
		if row[c].Kind != wal.Null {
			stored = row[c].Bytes
		}
		if !image[c].Absent() && !sameValue(t.spelling[c], image[c], stored) {
			return &valueError{name: g.Rel.Ref(), column: t.params[c].Name}
		}
	}
	return nil
}
