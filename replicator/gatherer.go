package replicator

import (
	"context"
	"errors"
	"time"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// gatherer makes batches of the deliveries of one run of an inbound pipe.
type gatherer struct {
	from   <-chan subscribe.Delivery
	took   func(subscribe.Delivery) // is told of each that was taken from there
	limit  int                      // rows
	bytes  int                      // of their values
	linger time.Duration            // how long to wait for more while many come
	self   *SelfMerge               // of the own stream: what it holds back is taken while nothing comes
	stop   <-chan struct{}
	quiet  time.Duration // how long next may wait; 0: for ever

	held  *subscribe.Delivery // came, and belongs to the next batch
	taken int                 // deliveries, without those of self
	save  *time.Timer         // for what self holds back; nil: it holds nothing
	last  time.Time           // when the last batch of self was gathered
}

// selfEvery is the least time between two batches of the self-merge while nobody waits for it: each is a
// transaction, and a look at what is on disk.
const selfEvery = 20 * time.Millisecond

// idleEvery is how long a position is held back before it is saved.
const idleEvery = 250 * time.Millisecond

func (g *gatherer) close() {
	if g.save != nil {
		g.save.Stop()
	}
}

// errQuiet: nothing came for as long as next may wait.
var errQuiet = errors.New("nothing comes")

// next returns the next batch; none, and no error, when the pipe is to stop. Errors: that of ctx,
// errQuiet.
func (g *gatherer) next(ctx context.Context) ([]subscribe.Delivery, error) {
	if d := g.held; d != nil {
		g.held = nil
		return g.gather(ctx, *d), nil
	}
	var quiet <-chan time.Time
	if g.quiet > 0 {
		t := time.NewTimer(g.quiet)
		defer t.Stop()
		quiet = t.C
	}
	for {
		kept, idle := g.idle()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-g.stop:
			return nil, nil
		case <-quiet:
			return nil, errQuiet
		case <-kept:
			g.save = time.NewTimer(idleEvery)
		case <-idle:
			g.save = nil
			if d := g.self.Idle(g.taken); d != nil {
				return []subscribe.Delivery{*d}, nil
			}
		case d := <-g.from:
			g.took(d)
			return g.gather(ctx, d), nil
		}
	}
}

// idle are the channels of what self holds back: that there is something, and that its time has come.
func (g *gatherer) idle() (kept <-chan struct{}, save <-chan time.Time) {
	switch {
	case g.self == nil:
	case g.save == nil:
		kept = g.self.Kept()
	default:
		save = g.save.C
	}
	return kept, save
}

// gather adds what is there already, up to a batch. Under load it waits a moment for more:
// one commit for many transactions is what makes it fast; when idle it does not wait. The self-merge
// waits behind a batch that was not long ago, until somebody waits for it.
func (g *gatherer) gather(ctx context.Context, first subscribe.Delivery) []subscribe.Delivery {
	b := batch.Gathering{Limit: g.limit, Bytes: g.bytes}
	b.Take(first.Packet.Transactions, first.NewIncarnation)
	out := []subscribe.Delivery{first}
	var linger <-chan time.Time
	var wanted <-chan struct{}
	if g.self != nil {
		defer func() { g.last = time.Now() }()
		if wait := time.Until(g.last.Add(selfEvery)); wait > 0 && !b.Full() {
			wanted = g.self.local.demand.wanted()
			t := time.NewTimer(wait)
			defer t.Stop()
			linger = t.C
		}
	}
	for !b.Full() && g.held == nil {
		if linger == nil && g.linger > 0 && b.Busy() {
			t := time.NewTimer(g.linger)
			defer t.Stop()
			linger = t.C
		}
		d, ok := g.more(ctx, linger, wanted)
		switch {
		case !ok:
			g.taken += len(out)
			return out
		case b.Take(d.Packet.Transactions, d.NewIncarnation):
			out = append(out, d)
		default:
			g.held = &d
		}
	}
	g.taken += len(out)
	return out
}

// more takes a delivery that is there, or that comes before linger ends, the batch is wanted, or the pipe is to stop.
func (g *gatherer) more(ctx context.Context, linger <-chan time.Time, wanted <-chan struct{}) (subscribe.Delivery, bool) {
	select {
	case d := <-g.from:
		g.took(d)
		return d, true
	default:
	}
	if linger == nil {
		return subscribe.Delivery{}, false
	}
	select {
	case d := <-g.from:
		g.took(d)
		return d, true
	case <-linger:
	case <-wanted:
	case <-g.stop:
	case <-ctx.Done():
	}
	return subscribe.Delivery{}, false
}
