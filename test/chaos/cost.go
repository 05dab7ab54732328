package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// costLength is how long a fault lasts whose cost is measured, where it has a length.
const costLength = 4 * time.Second

// cost tries every fault alone while the writers write, and prints how long it takes from
// the end of the fault until everything that was committed up to then is applied in both
// regions.
func (w *world) cost(ctx context.Context, v *verdicts) {
	busy, cancel := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.write(busy)
	}()
	defer func() {
		cancel()
		<-written
	}()
	rnd := planRand(w.o.seed)
	fmt.Printf("%-20s %6s %9s %9s %9s\n", "fault", "tries", "median", "longest", "undisturbed")
	for _, f := range w.kinds() {
		var took, calm []time.Duration
		for i := range w.o.cost {
			d := draw{length: costLength, n: rnd.IntN(1000), kind: rnd.IntN(1000)}
			if f.name == "sidecar-freeze" {
				d.n += 150 // not the long kind
			}
			s := w.sides[i%len(w.sides)]
			before, err := w.cross(ctx)
			if err == nil {
				err = f.do(ctx, w, s, d)
			}
			var after time.Duration
			if err == nil {
				after, err = w.cross(ctx)
			}
			if err != nil {
				v.add(f.name, err)
				return
			}
			took, calm = append(took, after), append(calm, before)
			s.setSkew(0)
			if harness.Pause(ctx, time.Second) != nil {
				return
			}
		}
		fmt.Printf("%-20s %6d %8.1fs %8.1fs %8.1fs\n", f.name, len(took), middle(took).Seconds(), slices.Max(took).Seconds(), middle(calm).Seconds())
		v.passed++
	}
}

// cross is how long it takes until what is committed now is applied in both regions.
func (w *world) cross(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	if err := w.waitReady(ctx); err != nil {
		return 0, err
	}
	err := w.pair.Cross(ctx, w.o.drain)
	return time.Since(begun), err
}

func middle(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}
