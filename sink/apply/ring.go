package apply

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Rows may pass unique values on to each other in a ring, or change places that exclude each other: at their origin by way
// of a value that nobody had, one after the other. Where one of these changes had to wait, for a lock or for that value, what is left of them is a ring: each waits for the
// value that another one of them shows, and none goes in by itself. So their rows are taken out together, and put in
// again with what they have now. That is done where nothing refers to a row by a foreign key that is enforced.

// maxRing is how many changes go in together at most.
const maxRing = firstChunk

// rings returns groups of changes of a queue that wait for nothing but each other.
func (r *Retrier) rings(ctx context.Context, k parked.Queue) ([][]int64, error) {
	pool, err := parked.OfState(ctx, r.a.conn, k.Origin, k.State, togetherPool)
	if err != nil {
		return nil, err
	}
	pool = slices.DeleteFunc(pool, func(c *parked.Change) bool {
		return c.Waiting.Relation.Ref() != k.Relation || c.Waiting.Op == wal.Delete || parked.IsKeyless(c.Key)
	})
	if len(pool) < 2 {
		return nil, nil
	}
	behind := map[int64][]int64{}
	if ok, err := r.inTheWay(ctx, k.Relation, pool, true, func(id, rival int64) { behind[id] = append(behind[id], rival) }); err != nil || !ok {
		return nil, err
	}
	return ringsOf(behind), nil
}

// ringsOf groups changes by what they are behind; 0 stands for a row that does not move.
func ringsOf(behind map[int64][]int64) (groups [][]int64) {
	stuck := map[int64]bool{0: true}
	for more := true; more; {
		more = false
		for id, rivals := range behind {
			if !stuck[id] && slices.ContainsFunc(rivals, func(rival int64) bool { return stuck[rival] }) {
				stuck[id], more = true, true
			}
		}
	}
	seen := map[int64]bool{}
	for id := range behind {
		var group []int64
		for todo := []int64{id}; len(todo) > 0; {
			next := todo[0]
			if todo = todo[1:]; !stuck[next] && !seen[next] {
				seen[next] = true
				group, todo = append(group, next), append(todo, behind[next]...)
			}
		}
		if len(group) > 1 && len(group) <= maxRing {
			slices.Sort(group)
			groups = append(groups, group)
		}
	}
	return groups
}

// rings tries the groups of changes that wait for each other, when none goes in by itself.
func (t *turn) rings(ctx context.Context) error {
	r := t.r
	if t.k.State != "23505" && t.k.State != stateExcluded || t.applied > 0 || !r.a.cfg.Replica || r.a.cfg.Self {
		return nil
	}
	groups, err := r.rings(ctx, t.k)
	if err != nil {
		return err
	}
	for _, ids := range groups[:min(len(groups), retryProbes)] {
		r.ids -= 2
		r.a.anew = true
		n, err := r.try(ctx, ids, t.wanted)
		r.a.anew = false
		switch {
		case err == nil:
			t.applied += n
			t.q.moved = time.Now()
		case ctx.Err() != nil || r.a.conn.IsClosed() || r.a.conn.PgConn().TxStatus() != 'I' || !parkable(err) && !errors.As(err, new(*stillParked)):
			return err
		}
	}
	return nil
}
