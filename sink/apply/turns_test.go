package apply

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// begins opens a giant transaction in a goroutine; the channel is closed once it is open.
func begins(t *testing.T, g *Turns, origin string, commit wal.Micros, beaten bool) <-chan struct{} {
	open := make(chan struct{})
	go func() {
		if err := g.begin(t.Context(), origin, taker{at: commit, origin: origin, beaten: beaten}, func() {}); err == nil {
			close(open)
		}
	}()
	return open
}

func isOpen(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Giant transactions go in side by side until one is beaten. That one has the database to itself, and
// of those that wait the one that was committed first goes first.
func TestGiantsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewTurns()
		if !isOpen(begins(t, g, "b", 1, false)) || !isOpen(begins(t, g, "c", 2, false)) {
			t.Fatal("two that nobody has beaten wait for each other")
		}
		if !g.met("b") || !g.met("c") {
			t.Error("two that are open at once have not met")
		}
		g.end("c")
		c := begins(t, g, "c", 2, true)
		if isOpen(c) {
			t.Fatal("one that was beaten begins again beside another one")
		}
		d, a := begins(t, g, "d", 4, false), begins(t, g, "a", 2, true)
		if isOpen(d) || isOpen(a) {
			t.Fatal("others begin while one that was beaten waits")
		}
		g.end("b")
		if !isOpen(a) || isOpen(c) || isOpen(d) {
			t.Fatal("the first of those that wait does not begin alone: of one commit time, the first name goes first")
		}
		g.end("a")
		if !isOpen(c) || isOpen(d) {
			t.Fatal("the one that was beaten does not begin alone")
		}
		if g.met("c") {
			t.Error("one that is open alone has met another one")
		}
		g.end("c")
		if !isOpen(d) {
			t.Fatal("the last one does not begin")
		}
	})
}

// Behind one that was beaten the next few giant transactions take turns from their beginning, those that were committed first before
// the others. Then they go side by side again.
func TestBehindAFightGiantsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewTurns()
		isOpen(begins(t, g, "b", 1, false))
		g.fought()
		for i := range wal.Micros(waryFor) {
			c := begins(t, g, "c", 10+i, false)
			if isOpen(c) {
				t.Fatalf("number %d behind a fight begins beside another one", i)
			}
			g.end("b")
			if !isOpen(c) {
				t.Fatalf("number %d behind a fight does not begin alone", i)
			}
			g.end("c")
			g.in["b"] = &taker{at: 1, origin: "b", open: true, moved: time.Now()}
		}
		if !isOpen(begins(t, g, "c", 100, false)) {
			t.Fatal("they take turns for ever")
		}
	})
}

// Where a part takes long to go in, the next one is not late after a few seconds: the machine has little time for anybody.
func TestASlowMachineIsGivenMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewTurns()
		isOpen(begins(t, g, "b", 5, false))
		isOpen(begins(t, g, "a", 1, true))
		for range 3 {
			g.moved("b")
			<-time.After(10 * time.Second)
			g.went("b")
		}
		<-time.After(44 * time.Second)
		if g.givesWay("b") || !g.others("a") {
			t.Error("a part is late that takes as long as those before it")
		}
		<-time.After(2 * time.Second)
		if !g.givesWay("b") || g.others("a") {
			t.Error("a part may be late for ever")
		}
		for range 40 {
			g.moved("b")
			<-time.After(10 * time.Millisecond)
			g.went("b")
		}
		<-time.After(giveWayAfter + time.Second)
		if !g.givesWay("b") {
			t.Error("a slow hour is remembered for ever")
		}
	})
}

// An open giant transaction whose next part does not come gives way to an earlier one, and a later one
// does not wait for it for ever.
func TestAGiantThatDoesNotMoveStandsInNobodysWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewTurns()
		isOpen(begins(t, g, "b", 5, false))
		earlier := begins(t, g, "a", 1, true)
		if isOpen(earlier) || g.givesWay("b") {
			t.Fatal("one that moves gives way")
		}
		<-time.After(giveWayAfter)
		if !g.givesWay("b") || g.others("a") {
			t.Fatal("one that does not move does not give way to an earlier one")
		}
		g.moved("b")
		if g.givesWay("b") || !g.others("a") {
			t.Fatal("one that moves again gives way")
		}
		g.end("b")
		later := begins(t, g, "c", 9, true)
		if !isOpen(earlier) || isOpen(later) {
			t.Fatal("the earlier one does not go first")
		}
		<-time.After(giveWayAfter)
		if g.givesWay("a") || isOpen(later) {
			t.Fatal("one gives way to a later one")
		}
		<-time.After(stuckAfter)
		if !isOpen(later) {
			t.Fatal("one that does not move is waited for for ever")
		}
	})
}

// Who waits for the giant transaction of another applier waits no longer than it lasts, and than he may.
func TestSmallBatchesWaitForAGiant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewTurns()
		isOpen(begins(t, g, "b", 1, false))
		begun := time.Now()
		if err := g.ended(t.Context(), "b", time.Minute); err != nil || time.Since(begun) > 0 {
			t.Errorf("an applier waits %s for its own: %v", time.Since(begun), err)
		}
		if err := g.ended(t.Context(), "c", time.Second); err != nil || time.Since(begun) != time.Second {
			t.Errorf("waited %s: %v", time.Since(begun), err)
		}
		time.AfterFunc(time.Second, func() { g.end("b") })
		if err := g.ended(t.Context(), "c", time.Minute); err != nil || time.Since(begun) != 2*time.Second {
			t.Errorf("waited %s until it had ended: %v", time.Since(begun), err)
		}
		isOpen(begins(t, g, "b", 1, true))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.begin(ctx, "c", taker{at: 2, origin: "c"}, func() {}); err == nil {
			t.Error("one that may not begin has begun")
		}
		if g.in["c"] != nil {
			t.Error("one that was stopped while it waited still waits")
		}
	})
}

// TestAGiantThatMovesIsWaitedFor: who meets a key of which another giant transaction decides, such as the
// self-merge's, waits for its end as long as it moves: the direction is not given up.
func TestAGiantThatMovesIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rel, x, g := wal.RelationName{Schema: "public", Name: "acct"}, tombstone.NewIndex(0), NewTurns()
		a := New(Config{Origin: "a", Index: x, Giants: g})
		meets := &openError{rel: rel, hash: x.Hash(rel, "1")}
		<-begins(t, g, "b", 1, false)
		x.BlindAt("b", 1, rel, []string{"1"}, 100)
		go func() {
			for range 60 {
				if pause.For(t.Context(), 2*time.Second) == nil {
					g.moved("b")
				}
			}
			x.Settle("b", true)
			g.end("b")
		}()
		begun := time.Now()
		if err := a.awaitOpen(t.Context(), meets); err != nil || time.Since(begun) < 2*time.Minute {
			t.Errorf("waited %s: %v", time.Since(begun), err)
		}
		<-begins(t, g, "b", 2, false)
		x.BlindAt("b", 1, rel, []string{"1"}, 200)
		begun = time.Now()
		if err := a.awaitOpen(t.Context(), meets); !errors.Is(err, errRace) || time.Since(begun) > time.Minute {
			t.Errorf("one that does not move: waited %s: %v", time.Since(begun), err)
		}
	})
}
