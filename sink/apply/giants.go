package apply

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Giants lets the appliers of a region take turns with giant transactions that meet on the same rows.
// Each holds its row locks until its last part, and is beaten by those of another one; if both began
// again at once, they would beat each other for ever.
//
// Giant transactions are applied side by side until one is beaten. That one begins again
// when no other one is open, and none begins while it is open. Of those that wait, the one that
// was committed first goes first. Everybody waits before the transaction begins, holding nothing.
//
// The order is that of the commit times, so it is the same in every region. That matters where the
// stream of an origin holds less than its giant transaction: then it has to be open in all regions
// at once, and its next parts do not come while it waits in one of them. So an open one whose next part does not
// come gives way to an earlier one (GiveWay), and a later one does not wait for ever.
//
// It is safe for concurrent use. What is waited for is bounded, and nothing rests on it but how often a
// giant transaction begins again.
type Giants struct {
	mu      sync.Mutex
	in      map[string]*giantTurn // by applier: those that are open or wait
	changed chan struct{}         // closed and replaced when one of them ends or begins
}

// giantTurn is a giant transaction that is open, or that waits to be.
type giantTurn struct {
	commit wal.Micros
	origin string
	open   bool
	beaten bool      // it gave up once for another one
	met    bool      // another one was open while it was
	moved  time.Time // when the last part of it came or went in
}

const (
	// giveWayAfter is how long the next part may not come before an open giant transaction gives way to
	// an earlier one.
	giveWayAfter = 5 * time.Second
	// stuckAfter is how long it may not move before others wait for it no more.
	stuckAfter = 30 * time.Second
)

// NewGiants makes the turns of one region. All its appliers share them.
func NewGiants() *Giants {
	return &Giants{in: map[string]*giantTurn{}, changed: make(chan struct{})}
}

// before orders giant transactions in the same way in every region.
func (t *giantTurn) before(u *giantTurn) bool {
	if c := cmp.Compare(t.commit, u.commit); c != 0 {
		return c < 0
	}
	return t.origin < u.origin
}

// begin waits until the applier may open a giant transaction. It is called outside of a transaction, and end
// afterwards, whatever came of it. waits is called once where there is something to wait for.
func (g *Giants) begin(ctx context.Context, applier string, t giantTurn, waits func()) error {
	g.mu.Lock()
	g.in[applier] = &t
	for said := false; !g.free(&t); said = true {
		changed := g.changed
		g.mu.Unlock()
		if !said {
			waits()
		}
		if err := wakened(ctx, changed, time.Second); err != nil {
			g.end(applier)
			return err
		}
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	t.open, t.moved = true, time.Now()
	for _, u := range g.in {
		if u != &t && u.open {
			u.met, t.met = true, true
		}
	}
	return nil
}

// wakened waits for a channel to be closed, a time to pass, or the context to end, which is the only error.
func wakened(ctx context.Context, changed <-chan struct{}, atMost time.Duration) error {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-changed:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// free reports whether a giant transaction may begin.
func (g *Giants) free(t *giantTurn) bool {
	for _, u := range g.in {
		switch {
		case u == t || !t.beaten && !u.beaten:
		case u.open && time.Since(u.moved) < stuckAfter, !u.open && u.before(t):
			return false
		}
	}
	return true
}

// end is told that the applier's giant transaction has ended, or waits no more.
func (g *Giants) end(applier string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in[applier] != nil {
		delete(g.in, applier)
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// moved is told that a part came, or went in.
func (g *Giants) moved(applier string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.in[applier]; t != nil {
		t.moved = time.Now()
	}
}

// met reports whether another giant transaction was open while the applier's was.
func (g *Giants) met(applier string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.in[applier]
	return t != nil && t.met
}

// givesWay reports whether the applier's open giant transaction is to be given back, because its next part
// does not come and an earlier one waits.
func (g *Giants) givesWay(applier string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.in[applier]
	if t == nil || !t.open || time.Since(t.moved) < giveWayAfter {
		return false
	}
	for _, u := range g.in {
		if !u.open && u.before(t) && (u.beaten || t.beaten) {
			return true
		}
	}
	return false
}

// others reports whether the giant transaction of another applier is open and moves.
func (g *Giants) others(applier string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, u := range g.in {
		if name != applier && u.open && time.Since(u.moved) < giveWayAfter {
			return true
		}
	}
	return false
}

// ended waits, outside of a transaction, until no giant transaction of another applier is open that moves, but
// not longer than atMost.
func (g *Giants) ended(ctx context.Context, applier string, atMost time.Duration) error {
	until := time.Now().Add(atMost)
	for g.others(applier) && time.Now().Before(until) {
		g.mu.Lock()
		changed := g.changed
		g.mu.Unlock()
		if err := wakened(ctx, changed, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
