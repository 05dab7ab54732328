package replicator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// gathered is a batch of one gatherer: when it was handed on, and how many deliveries it has.
type gathered struct {
	at time.Duration
	n  int
}

// gatherSelf sends a delivery of the own stream every 5 ms, and returns the batches that come of them.
// busy is called in front of each, with its number.
func gatherSelf(t *testing.T, deliveries int, local *LocalWAL, busy func(i int)) []gathered {
	t.Helper()
	began, from, sent := time.Now(), make(chan subscribe.Delivery), make(chan struct{})
	g := &gatherer{from: from, took: func(subscribe.Delivery) {}, limit: 1000, self: NewSelfMerge(nil, local)}
	defer g.close()
	go func() {
		defer close(sent)
		for i := range deliveries {
			busy(i)
			from <- subscribe.Delivery{Packet: &wire.Packet{Transactions: []*wal.Transaction{{}}}}
			wait := time.NewTimer(5 * time.Millisecond)
			<-wait.C
		}
	}()
	var got []gathered
	for n := 0; n < deliveries; {
		batch, err := g.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, gathered{time.Since(began), len(batch)})
		n += len(batch)
	}
	<-sent
	return got
}

// The self-merge takes the first change at once, and then, while nobody waits, no more than one batch every
// selfEvery.
func TestTheSelfMergeGathersWhileNobodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := gatherSelf(t, 101, NewLocalWAL(nil), func(int) {})
		if got[0] != (gathered{0, 1}) {
			t.Errorf("the first is %v, want it at once", got[0])
		}
		for i := 1; i < len(got); i++ {
			if rest := got[i].at - got[i-1].at; rest < selfEvery || rest > selfEvery+5*time.Millisecond {
				t.Errorf("batch %d comes %v behind the one before", i, rest)
			}
		}
		if len(got) > 27 {
			t.Errorf("%d batches of 101 changes in half a second", len(got))
		}
	})
}

// Who waits for the self-merge gets each change at once, also one that is being gathered already.
func TestTheSelfMergeDoesNotGatherWhileSomebodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		local := NewLocalWAL(nil)
		var end func()
		got := gatherSelf(t, 30, local, func(i int) {
			switch i {
			case 10:
				end = local.demand.begin()
			case 20:
				end()
			}
		})
		at, alone := 0, 0
		for _, b := range got {
			if at >= 10 && at < 20 && b.n == 1 {
				alone++
			}
			at += b.n
		}
		// What was gathered when the wait began is a batch of its own.
		if alone < 9 {
			t.Errorf("%d of ten changes come alone while somebody waits: %v", alone, got)
		}
	})
}

// A wait for what is merged is one that the self-merge hears of.
func TestAWaitForTheSelfMergeIsDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocalWAL(quietDB{end: 1000})
		l.Stamped(2000)
		before := l.demand.wanted()
		l.Note(wal.RelationName{Schema: "public", Name: "acct"}, []byte("1"), tombstone.Place{Commit: 900}, conflict.Item{Next: 1})
		done := make(chan error, 1)
		go func() { done <- l.WaitMerged(t.Context(), time.Minute, time.Minute) }()
		synctest.Wait()
		select {
		case <-before:
		default:
			t.Error("the self-merge is not told that somebody waits")
		}
		l.MergedTo(1000)
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case <-l.demand.wanted():
			t.Error("somebody waits still")
		default:
		}
	})
}
