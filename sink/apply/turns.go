package apply

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Turns lets the appliers of a region take turns with transactions that meet on the same rows. There is one
// for giant transactions and one for all others.
//
// They go side by side until one is beaten: another one holds a lock that it waits for. If both began
// again at once, they would beat each other for ever, and those that hold many locks for long beat everybody
// else. So the beaten one begins again when no other one is open, and none begins while it
// waits or is open. Of several that wait, the one with the lowest time goes first. Everybody waits before the
// transaction begins, holding nothing. Where giant transactions have beaten each other, the next few want the same rows, mostly: all
// that they did by then would be thrown away each time. So they take turns from their beginning (fought).
//
// Giant transactions are in the order of their commit times, so it is the same in every region. That matters where the
// stream of an origin holds less than its giant transaction: then it has to be open in all regions
// at once, and its next parts do not come while it waits in one of them. So an open one whose next part does not
// come gives way to an earlier one (givesWay), and a later one does not wait for ever. All others are in the order in which
// they were beaten, so that none waits for long.
//
// It is safe for concurrent use. What is waited for is bounded, and nothing rests on it but how often a
// transaction begins again.
type Turns struct {
	mu      sync.Mutex
	in      map[string]*taker // by session: those that are open or wait
	changed chan struct{}     // closed and replaced when one of them ends or begins
	wary    int               // how many of those to come take turns from their beginning
	pace    time.Duration     // how long a part took to go in of late
}

// taker is a transaction that is open, or that waits to be.
type taker struct {
	at     wal.Micros // when it was committed, or beaten
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
	// paces is by how many parts, as long as they take of late, both are longer, up to paceMost for one: where
	// the machine has little time for anybody, the next part is not late.
	paces    = 4
	paceMost = 15 * time.Second
	// waryFor is how many giant transactions take turns behind one that was beaten.
	waryFor = 8
)

// NewTurns makes the turns of one region. All its appliers share them.
func NewTurns() *Turns {
	return &Turns{in: map[string]*taker{}, changed: make(chan struct{})}
}

// before orders those that wait.
func (t *taker) before(u *taker) bool {
	if c := cmp.Compare(t.at, u.at); c != 0 {
		return c < 0
	}
	return t.origin < u.origin
}

// begin waits until the session may open a transaction. It is called outside of one, and end
// afterwards, whatever came of it. waits is called once where there is something to wait for.
func (g *Turns) begin(ctx context.Context, session string, t taker, waits func()) error {
	g.mu.Lock()
	if g.wary > 0 {
		g.wary--
		t.beaten = true
	}
	g.in[session] = &t
	for said := false; !g.free(&t); said = true {
		changed := g.changed
		g.mu.Unlock()
		if !said {
			waits()
		}
		if err := wakened(ctx, changed, time.Second); err != nil {
			g.end(session)
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

// free reports whether a transaction may begin.
func (g *Turns) free(t *taker) bool {
	for _, u := range g.in {
		switch {
		case u == t || !t.beaten && !u.beaten:
		case u.open && time.Since(u.moved) < g.atLeast(stuckAfter), !u.open && u.before(t):
			return false
		}
	}
	return true
}

// end is told that the session's transaction has ended, or waits no more.
func (g *Turns) end(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in[session] != nil {
		delete(g.in, session)
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// moved is told that the session's transaction gets on: a part came, or something of it went in.
func (g *Turns) moved(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.in[session]; t != nil {
		t.moved = time.Now()
	}
}

// went is told that a part of the session's transaction, which came when moved was called, went in.
func (g *Turns) went(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.in[session]; t != nil {
		took := min(time.Since(t.moved), paceMost)
		g.pace = max(took, g.pace-(g.pace-took)/8)
		t.moved = time.Now()
	}
}

// atLeast makes a limit longer where parts take long.
func (g *Turns) atLeast(limit time.Duration) time.Duration { return limit + paces*g.pace }

// fought is told that one of the transactions was beaten by another one.
func (g *Turns) fought() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wary = waryFor
}

// met reports whether another transaction was open when the session's began, or began while that was open.
func (g *Turns) met(session string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.in[session]
	return t != nil && t.met
}

// givesWay reports whether the applier's open giant transaction is to be given back, because its next part
// does not come and an earlier one waits.
func (g *Turns) givesWay(session string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.in[session]
	if t == nil || !t.open || time.Since(t.moved) < g.atLeast(giveWayAfter) {
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
func (g *Turns) others(session string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, u := range g.in {
		if name != session && u.open && time.Since(u.moved) < g.atLeast(giveWayAfter) {
			return true
		}
	}
	return false
}

// ended waits, outside of a transaction, until no giant transaction of another applier is open that moves, but
// not longer than atMost.
func (g *Turns) ended(ctx context.Context, session string, atMost time.Duration) error {
	return g.while(ctx, atMost, func() bool { return g.others(session) })
}

// while waits as long as something is so, which the begin or the end of a transaction may change, or time; but not longer than atMost.
func (g *Turns) while(ctx context.Context, atMost time.Duration, so func() bool) error {
	for until := time.Now().Add(atMost); so() && time.Now().Before(until); {
		g.mu.Lock()
		changed := g.changed
		g.mu.Unlock()
		if err := wakened(ctx, changed, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// open reports whether the transaction of another applier is open.
func (g *Turns) open(session string) bool { return len(g.opened(session)) > 0 }

// opened are the transactions of other appliers that are open.
func (g *Turns) opened(session string) []*taker {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*taker
	for name, u := range g.in {
		if name != session && u.open {
			out = append(out, u)
		}
	}
	return out
}

// gone waits until every transaction of other appliers that is open now has ended, but not longer than atMost.
func (g *Turns) gone(ctx context.Context, session string, atMost time.Duration) error {
	now := g.opened(session)
	return g.while(ctx, atMost, func() bool {
		return slices.ContainsFunc(g.opened(session), func(u *taker) bool { return slices.Contains(now, u) })
	})
}
