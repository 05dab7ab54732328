package apply

import (
	"context"
	"errors"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// turn is the work on one queue in one turn of the retrier.
type turn struct {
	r        *Retrier
	k        parked.Queue
	q        *queue
	wanted   bool   // somebody waits for it: it comes first, and more of it
	cursor   *int64 // the last id that was tried
	round    bool   // the end of the queue was reached
	applied  int
	refused  int // tries that did not go in
	failures []parked.Failure
	lacking  []int64       // lack values, and somebody waits for them
	ask      told          // what peers are asked for
	now      *wal.Relation // how the origin describes the table, where columns of changes are gone there, or have other types
}

// work tries a queue for one turn.
func (r *Retrier) work(ctx context.Context, k parked.Queue, wanted bool) error {
	t := &turn{r: r, k: k, q: r.queues[k], wanted: wanted}
	t.cursor = &t.q.cursor
	slice, probes := r.slice, retryProbes
	if wanted {
		t.cursor, slice, probes = new(int64), r.wantedSlice, wantedProbes
	}
	began := time.Now()
	defer func() { t.q.tried, t.q.cost, t.q.anew = time.Now(), time.Since(began), false }()
	r.a.forgetSchemas()
	clear(r.now)
	for time.Since(began) < t.slice(slice) && len(t.failures) < probes+t.applied && (wanted || r.ids >= 2) {
		more, err := t.step(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	r.flows = r.flows || t.flows() && !t.round
	if t.applied > 0 {
		r.a.cfg.Log.Info("parked changes applied", "origin", k.Origin, "relation", k.Relation.String(), "changes", t.applied)
	}
	if err := t.report(ctx); err != nil {
		return err
	}
	t.q.due = time.Now().Add(t.rest())
	return nil
}

// flows reports whether something went in and nothing failed.
func (t *turn) flows() bool { return t.applied > 0 && t.refused == 0 }

// slice is for how long the queue is worked on in this turn.
func (t *turn) slice(usual time.Duration) time.Duration {
	if t.flows() {
		return max(usual, retryFlows)
	}
	return usual
}

// step tries the next changes of the queue together. more is false when there is nothing to be
// tried any more in this turn.
func (t *turn) step(ctx context.Context) (more bool, err error) {
	ids, end, err := t.page(ctx)
	if err != nil {
		return false, err
	}
	if end == 0 {
		*t.cursor, t.round = 0, true
		return false, t.rings(ctx)
	}
	if len(ids) == 0 {
		*t.cursor = end
		return true, nil
	}
	n, err := t.try(ctx, ids)
	if err == nil {
		t.applied += n
		*t.cursor, t.q.chunk, t.q.moved = end, min(retryChunk, t.q.chunk*4), time.Now()
		return true, nil
	}
	return t.failed(ctx, ids, err)
}

// try applies changes in one transaction: one change that misses what another parked one brings
// goes in together with it.
func (t *turn) try(ctx context.Context, ids []int64) (n int, err error) {
	r := t.r
	if err = r.fits(ctx, ids[0]); err == nil {
		n, err = r.try(ctx, ids, t.wanted)
	}
	if len(ids) == 1 && stateOf(err) == "23503" && !r.a.conn.IsClosed() {
		n, err = r.tryTogether(ctx, t.k, ids[0], t.wanted, err)
	}
	if ctx.Err() == nil && r.a.conn.IsClosed() && !r.a.cfg.Index.EndedHere(r.a.conn.PgConn().PID()) && len(ids) == 1 {
		r.a.cfg.Suspects.endedRetry(ids[0])
	}
	return n, err
}

// failed deals with a try that did not go in. It returns errors that end the session's work.
func (t *turn) failed(ctx context.Context, ids []int64, err error) (more bool, _ error) {
	r := t.r
	t.refused++
	if ctx.Err() != nil || r.a.conn.IsClosed() {
		return false, err
	}
	if !parkable(err) && !errors.As(err, new(*stillParked)) {
		return false, err
	}
	if r.a.conn.PgConn().TxStatus() != 'I' {
		return false, err
	}
	if misfit := (*schemaError)(nil); errors.As(err, &misfit) {
		// Nothing of it can go in, and nothing was written to find that out.
		gone := (*goneColumns)(nil)
		if errors.As(err, &gone) {
			t.now = gone.now
		}
		if misfit.code == stateApart && len(ids) == 1 {
			*t.cursor = ids[0]
			return true, r.setApart(ctx, ids[0], misfit)
		}
		if t.wanted && misfit.code != stateApart {
			return false, parked.Refused(ctx, r.a.conn, t.k)
		}
		if misfit.code != stateApart && misfit.code != stateSwapped && gone == nil {
			return false, nil
		}
		// What is known of the columns of one is not known of those of another, and one whose columns are gone says nothing of those
		// that came by the newest description, which fits.
		if len(ids) > 1 {
			t.q.chunk = max(1, t.q.chunk/8)
			return true, nil
		}
		*t.cursor = ids[0]
		return t.refused < swappedProbes, nil
	}
	r.ids -= 2
	if len(ids) > 1 {
		t.q.chunk = max(1, t.q.chunk/8)
		return true, nil
	}
	*t.cursor = ids[0]
	if still := new(stillParked); errors.As(err, &still) && still.lacks && t.wanted {
		t.lacking = append(t.lacking, ids[0])
	}
	if t.now == nil {
		now, rerr := r.retyped(ctx, ids[0], stateOf(err))
		if rerr != nil {
			return false, rerr
		}
		t.now = now
	}
	t.failures = append(t.failures, parked.Failure{ID: ids[0], State: stateOf(err), Message: r.a.encoding.text(publicError(err))})
	return true, nil
}

// report writes down why changes still wait, and asks peers for what they lack.
func (t *turn) report(ctx context.Context) error {
	r := t.r
	if len(t.failures) > 0 {
		r.ids--
		if err := parked.Tried(ctx, r.a.conn, t.failures); err != nil {
			return err
		}
	}
	first := t.now != nil && t.q.asked.IsZero() // nobody asked when they were parked
	if (t.k.State == stateLacks || t.now != nil) && r.a.cfg.Tell && (first || t.q.asks(r.last[t.k].Changes)) {
		if err := r.askMore(ctx, t.k, t.q, t.now, &t.ask); err != nil {
			return err
		}
	}
	if len(t.lacking) > 0 && r.a.cfg.Tell {
		if _, err := r.askFor(ctx, t.lacking, nil, &t.ask); err != nil {
			return err
		}
	}
	if len(t.ask.notices) > 0 && r.a.cfg.Tell {
		return r.ask(ctx, t.ask)
	}
	return nil
}

// rest is how long the queue is left alone now.
func (t *turn) rest() time.Duration {
	rest := min(retryMax, time.Since(t.q.moved)/10)
	switch {
	case t.round:
	case t.applied > 0:
		rest = 0
	case len(t.failures) == 0:
		rest = min(rest, 2*retryTick) // a long queue that is looked through without being tried
	}
	return rest
}

// page returns the next changes of a queue to be tried together, and the id behind which the
// one after it begins; 0 at the end of the queue.
func (t *turn) page(ctx context.Context) (ids []int64, end int64, err error) {
	r, k, q, after, wanted := t.r, t.k, t.q, *t.cursor, t.wanted
	if k.State == "23505" && !wanted {
		if ids, err = parked.Page(ctx, r.a.conn, k, after, screenPage, false); err != nil || len(ids) == 0 {
			return nil, 0, err
		}
		free, ok, err := r.screen(ctx, k, ids)
		switch {
		case err != nil:
			return nil, 0, err
		case ok && len(free) > q.chunk:
			return free[:q.chunk], free[q.chunk-1], nil
		case ok:
			return free, ids[len(ids)-1], nil
		}
	}
	if ids, err = parked.Page(ctx, r.a.conn, k, after, q.chunk, wanted); err != nil || len(ids) == 0 {
		return nil, 0, err
	}
	return ids, ids[len(ids)-1], nil
}
