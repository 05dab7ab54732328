package demo

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	workersPerRegion = 4
	// conflictShare is the part of the operations that are conflicts on purpose.
	conflictShare = 0.08
	// settled is the age at which a user is taken to be known in both regions.
	settled = 700 * time.Millisecond
)

// workload is the account service of both regions at once. run owns its goroutines.
type workload struct {
	regions [2]*region
	ledger  *ledger
	rate    int // operations per second, both regions together
	rng     *rand.Rand
	cutAt   atomic.Int64 // unix nanoseconds of a cut that lasts, 0 while the link is up

	mu     sync.Mutex
	counts counts
}

// counts is what the workload did.
type counts struct {
	Writes    [2]int         // statements that succeeded, per region
	Conflicts map[string]int // made on purpose, by what was done
	Refused   map[string]int // by SQLSTATE, or "connection"
}

// job is one operation in one region.
type job struct {
	do  func(ctx context.Context, c *client)
	rng uint64 // seed of what is random in it
}

func newWorkload(regions [2]*region, l *ledger, rate int, seed uint64) *workload {
	return &workload{regions: regions, ledger: l, rate: rate, rng: rand.New(rand.NewPCG(seed, 1)),
		counts: counts{Conflicts: map[string]int{}, Refused: map[string]int{}}}
}

// run writes until ctx ends, then finishes what is in hand and returns.
func (w *workload) run(ctx context.Context) error {
	// The statements in hand must get their answer: without it their outcome is unknown.
	hard := context.WithoutCancel(ctx)
	var g errgroup.Group
	var queues [2]chan job
	for i := range w.regions {
		queues[i] = make(chan job, 2*workersPerRegion) // a short queue: a slow region slows the source
		for range workersPerRegion {
			g.Go(func() error {
				for j := range queues[i] {
					j.do(hard, &client{w: w, r: w.regions[i], side: i, rng: rand.New(rand.NewPCG(j.rng, 2))})
				}
				return nil
			})
		}
	}
	w.dispatch(ctx, queues)
	for i := range queues {
		close(queues[i])
	}
	return g.Wait()
}

// dispatch hands out operations at the rate. What could not be handed out in time is not
// made up for beyond a tenth of a second.
func (w *workload) dispatch(ctx context.Context, queues [2]chan job) {
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	owed, last := 0.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			owed = min(owed+now.Sub(last).Seconds()*float64(w.rate), float64(w.rate)/10+1)
			last = now
		}
		for ; owed >= 1; owed-- {
			jobs := w.next()
			for i, j := range jobs {
				if j.do == nil {
					continue
				}
				select {
				case queues[i] <- j:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// next draws an operation: one region's, or both regions' at the same moment.
func (w *workload) next() [2]job {
	var jobs [2]job
	if w.rng.Float64() < conflictShare {
		jobs = w.conflict()
	}
	if jobs[0].do == nil && jobs[1].do == nil {
		side := w.rng.IntN(2)
		jobs[side].do = w.ordinary(side)
	}
	jobs[0].rng, jobs[1].rng = w.rng.Uint64(), w.rng.Uint64()
	return jobs
}

// known is the moment before which a row was made that both regions have.
func (w *workload) known() time.Time {
	before := time.Now().Add(-settled)
	if ns := w.cutAt.Load(); ns != 0 {
		if cut := time.Unix(0, ns).Add(-settled); cut.Before(before) {
			return cut
		}
	}
	return before
}

// ordinary draws one of the things that the account service does all day.
func (w *workload) ordinary(side int) func(context.Context, *client) {
	draw := func(do func(*client, context.Context)) func(context.Context, *client) {
		return func(ctx context.Context, c *client) { do(c, ctx) }
	}
	switch n := w.rng.IntN(100); {
	case n < 18:
		return draw((*client).signUp)
	case n < 48:
		return draw((*client).updateProfile)
	case n < 72:
		return draw((*client).logIn)
	case n < 79:
		return draw((*client).logOut)
	case n < 91:
		return draw((*client).subscribe)
	case n < 96:
		return draw((*client).cancel)
	case n < 98 || side != 0:
		return draw((*client).deleteUser)
	}
	// One region only: the matrix has a natural key and gets new uuids each time.
	return draw((*client).replaceMatrix)
}

// conflict draws something that both regions do to the same row at the same moment.
func (w *workload) conflict() [2]job {
	home := w.rng.IntN(2)
	own := w.regions[home].people
	var jobs [2]job
	both := func(name string, atHome, away func(context.Context, *client)) [2]job {
		jobs[home].do, jobs[1-home].do = atHome, away
		w.mu.Lock()
		w.counts.Conflicts[name]++
		w.mu.Unlock()
		return jobs
	}
	switch n := w.rng.IntN(100); {
	case n < 50:
		if u, ok := own.user(w.rng, w.known(), anyone); ok {
			update := func(ctx context.Context, c *client) { c.updateUser(ctx, u.key) }
			return both("same row updated in both", update, update)
		}
	case n < 75:
		if u, ok := own.take(w.rng, w.known(), childless); ok {
			remove := func(ctx context.Context, c *client) { c.removeUser(ctx, u.key) }
			update := func(ctx context.Context, c *client) { c.updateUser(ctx, u.key) }
			if w.rng.IntN(2) == 0 {
				return both("deleted here, updated there", remove, update)
			}
			return both("deleted here, updated there", update, remove)
		}
	case n < 90:
		key := newUUID(w.rng)
		insert := func(ctx context.Context, c *client) { c.insertUser(ctx, key, false) }
		return both("same key inserted in both", insert, insert)
	default:
		if s, ok := own.settledSubscription(w.rng, w.known()); ok {
			change := func(ctx context.Context, c *client) { c.changePlan(ctx, s) }
			return both("same subscription changed in both", change, change)
		}
	}
	return jobs
}

func (w *workload) wrote(side, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Writes[side] += n
}

func (w *workload) refused(code string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Refused[code]++
}

// snapshot copies the counts.
func (w *workload) snapshot() counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := counts{Writes: w.counts.Writes, Conflicts: map[string]int{}, Refused: map[string]int{}}
	for k, v := range w.counts.Conflicts {
		c.Conflicts[k] = v
	}
	for k, v := range w.counts.Refused {
		c.Refused[k] = v
	}
	return c
}
