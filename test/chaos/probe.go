package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// release lets go of the secondary keys that clash: first in one region, then in the other.
// Changes that were parked for them go in then.
func (w *world) release(ctx context.Context, limit time.Duration) error {
	for _, t := range w.tables {
		if !t.email {
			continue
		}
		for _, s := range w.sides {
			x := w.writer(s, 2000)
			if err := x.releaseAll(ctx, t); err != nil {
				return err
			}
			if err := w.pair.WaitInStep(ctx, limit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) releaseAll(ctx context.Context, t *table) error {
	defer w.drop()
	for key := range int32(t.keys) {
		if err := w.connect(ctx); err != nil {
			return err
		}
		tx, err := w.conn.Begin(ctx)
		if err != nil {
			return err
		}
		base, found, err := lock(ctx, tx, t, key+1)
		if err != nil {
			return err
		}
		id := w.j.ids(1)
		if found {
			if _, err := tx.Exec(ctx, "update "+t.name+" set email = null, wid = $1 where k = $2", id, key+1); err != nil {
				return err
			}
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		if found {
			w.j.note([]write{w.write(t, key+1, opUpdate, id, base)}, acked)
		}
	}
	return nil
}

// probe cuts the link, writes every key in both regions and heals it. Regions that look
// equal and remember keys differently come out different.
func (w *world) probe(ctx context.Context) error {
	for _, l := range w.pair.NatsLinks() {
		l.Cut()
	}
	var both sync.WaitGroup
	for _, s := range w.sides {
		both.Go(func() {
			x := w.writer(s, 3000)
			x.rnd = rand.New(rand.NewPCG(w.o.seed, 3000+uint64(s.index)))
			defer x.drop()
			for _, t := range w.tables {
				if t.bulk || t.email {
					continue
				}
				for key := range int32(t.keys) {
					for range 1 + x.rnd.IntN(2) {
						x.transaction(ctx, []step{{t: t, key: key + 1}}, true)
					}
				}
			}
		})
	}
	both.Wait()
	err := harness.Pause(ctx, time.Second)
	w.pair.HealAll()
	return err
}
