package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// fault is one kind of trouble. It holds what it breaks until it has put it right again:
// two faults never hold one target at once, but faults of different targets overlap.
type fault struct {
	name   string
	why    string
	weight int
	only   string // topologies in which it makes sense; "" for all
	needs  func(w *world) bool
	// targets names what the fault holds.
	targets func(s *side) []string
	do      func(ctx context.Context, w *world, s *side, d draw) error
}

// draw is what the seed chose for one fault, whether or not it uses it.
type draw struct {
	length time.Duration // up to 8 s, short ones are more frequent
	n      int           // 0..999
	kind   int           // 0..999
}

// planned is one fault of a plan.
type planned struct {
	after time.Duration // since the one before
	f     *fault
	side  int
	draw  draw
}

// drawPlanned draws the next fault.
func drawPlanned(rnd *rand.Rand, kinds []*fault, sides int, every time.Duration) planned {
	total := 0
	for _, f := range kinds {
		total += f.weight
	}
	p := planned{
		after: time.Duration(rnd.Int64N(int64(2 * every))), side: rnd.IntN(sides),
		draw: draw{length: time.Duration(8e9 * rnd.Float64() * rnd.Float64()), n: rnd.IntN(1000), kind: rnd.IntN(1000)},
	}
	x := rnd.IntN(total)
	for _, f := range kinds {
		if x -= f.weight; x < 0 {
			p.f = f
			break
		}
	}
	return p
}

// kinds are the faults that are chosen and possible in this world.
func (w *world) kinds() []*fault {
	var out []*fault
	for _, f := range faultKinds() {
		if w.o.faults.MatchString(f.name) && (f.only == "" || f.only == w.o.topology) && (f.needs == nil || f.needs(w)) {
			out = append(out, f)
		}
	}
	return out
}

// breakThings draws faults from the seed until ctx ends, and waits for the last ones. It
// returns how often each kind was at work.
func (w *world) breakThings(ctx context.Context) map[string]int {
	kinds := w.kinds()
	counts := map[string]int{}
	if len(kinds) == 0 {
		<-ctx.Done()
		return counts
	}
	rnd := planRand(w.o.seed)
	held := &targets{names: map[string]bool{}}
	var running sync.WaitGroup
	for {
		p := drawPlanned(rnd, kinds, len(w.sides), w.o.every)
		if harness.Pause(ctx, p.after) != nil {
			break
		}
		s := w.sides[p.side]
		names := p.f.targets(s)
		if !held.take(names) {
			continue
		}
		counts[p.f.name]++
		w.say("%s %s for %s (%d, %d)", p.f.name, s.Side, p.draw.length.Round(time.Millisecond), p.draw.n, p.draw.kind)
		running.Go(func() {
			defer held.give(names)
			// A fault puts right what it broke, also when the run ends meanwhile.
			if err := p.f.do(context.WithoutCancel(ctx), w, s, p.draw); err != nil {
				w.complain("%s %s: %v", p.f.name, s.Side, err)
			}
		})
	}
	running.Wait()
	return counts
}

// targets are what faults hold. Safe for use from any goroutine.
type targets struct {
	mu    sync.Mutex
	names map[string]bool
}

func (t *targets) take(names []string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		if t.names[n] {
			return false
		}
	}
	for _, n := range names {
		t.names[n] = true
	}
	return true
}

func (t *targets) give(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		delete(t.names, n)
	}
}

func onSidecar(s *side) []string { return []string{"sidecar." + s.Side} }
func onServer(s *side) []string  { return []string{"server." + s.Side} }
func onLink(*side) []string      { return []string{"link"} }
func onNATS(*side) []string      { return []string{"nats"} }
func onPGLink(s *side) []string  { return []string{"pglink." + s.Side} }

// planRand is the source from which the faults of a run are drawn.
func planRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }
