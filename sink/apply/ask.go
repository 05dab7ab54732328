package apply

import (
	"context"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// askMax is the longest pause between two questions for what parked changes lack.
const askMax = 10 * time.Minute

// askPage is for how many changes is asked at once.
const askPage = 1000

// stateLacks is the SQLSTATE of changes that lack values, and of changes of a keyless table whose
// row is not here.
const stateLacks = "P0002"

// asks reports whether it is time to ask again for what changes lack. They were asked for when
// they were parked, and the answer is on its way. Who was asked again and answers is asked for more
// at once; who does not is asked ever more seldom.
func (q *queue) asks(waiting int64) bool {
	switch {
	case time.Since(q.moved) <= retryMax:
		return false
	case q.asking > 0 && q.askedOf-waiting >= int64(q.asking*9/10):
		q.askRest = 0
		return true
	}
	return time.Since(q.asked) > max(retryMax, q.askRest)
}

// askMore asks for what the next changes of a queue lack.
func (r *Retrier) askMore(ctx context.Context, k parked.Queue, q *queue, now *wal.Relation, ask *told) error {
	ids, err := parked.Page(ctx, r.a.conn, k, q.askCursor, askPage, false)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		q.askCursor, q.asking = 0, 0
		return nil
	}
	if q.asking, err = r.askFor(ctx, ids, now, ask); err != nil {
		return err
	}
	q.askCursor, q.asked, q.askedOf = ids[len(ids)-1], time.Now(), r.last[k].Changes
	q.askRest = min(askMax, max(retryMax, 2*q.askRest))
	return nil
}

// askFor gathers the questions for what parked changes lack, and returns of how many; now as in wants.
func (r *Retrier) askFor(ctx context.Context, ids []int64, now *wal.Relation, ask *told) (n int, err error) {
	changes, err := parked.Read(ctx, r.a.conn, ids)
	if err != nil {
		return 0, err
	}
	for _, c := range changes {
		wants := r.a.wants(c, now)
		for _, w := range wants {
			ask.notice(w)
		}
		if len(wants) > 0 {
			n++
		}
	}
	return n, nil
}

// ask writes notices in a transaction of their own.
func (r *Retrier) ask(ctx context.Context, what told) error {
	b := pipeline{fence: -1}
	if err := r.a.begin(ctx, &b); err != nil {
		return err
	}
	if err := r.a.run(ctx, &b, nil, nil, nil); err != nil {
		return err
	}
	fx := effects{tell: what}
	if err := r.a.writeEffects(ctx, &fx); err != nil {
		return err
	}
	return r.a.simple(ctx, "commit")
}
