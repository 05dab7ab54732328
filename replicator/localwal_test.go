package replicator

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// countFlushes is a pipe that has nothing to hand on.
type countFlushes struct{ n *int }

func (c countFlushes) Flush() error { *c.n++; return nil }

// fullOf is a stream that is full of what peers have applied up to a position.
type fullOf struct{ applied *atomic.Uint64 }

func (f fullOf) AwaitsMerge(merged wal.LSN) bool { return wal.LSN(f.applied.Load()) > merged }

// TestStampingHandsOnWhatItWaitsFor: stamping that waits for an applier first, and then for own
// changes that the pipe has gathered, hands these on.
func TestStampingHandsOnWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocalWAL(nil)
		l.Index = tombstone.NewLimitedIndex(tombstone.Limits{Own: 1})
		rel := wal.RelationName{Schema: "public", Name: "acct"}
		flushed := 0
		l.Reading(nil, countFlushes{&flushed}, nil)
		l.Note(rel, []byte("1"), tombstone.Place{Commit: 100}, conflict.Item{Next: 1})
		l.Note(rel, []byte("2"), tombstone.Place{Commit: 200}, conflict.Item{Next: 1}) // beyond the limit
		l.Stamped(250)
		if _, ok := l.Blind("b", 7, rel, []string{"2"}); !ok {
			t.Fatal("the position is not known")
		}
		done := make(chan error, 1)
		go func() {
			_, err := l.Below(context.Background(), 300, []tombstone.Ref{{Relation: rel, Key: "2"}})
			done <- err
		}()
		synctest.Wait()
		if flushed != 0 {
			t.Errorf("flushed %d times while an applier decides", flushed)
		}
		l.Settle("b", false)
		synctest.Wait()
		if flushed != 1 {
			t.Errorf("flushed %d times while own changes have to be merged", flushed)
		}
		select {
		case <-l.demand.wanted():
		default:
			t.Error("the self-merge is not told that stamping waits for it")
		}
		l.MergedTo(250)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// quietDB is a server whose WAL ends at a position.
type quietDB struct {
	LocalDB
	end wal.LSN
}

func (d quietDB) InsertLSN(context.Context) (wal.LSN, error) { return d.end, nil }
func (quietDB) Flush(context.Context) error                  { return nil }
func (quietDB) Snapshot(context.Context) (*tombstone.Snapshot, error) {
	return &tombstone.Snapshot{}, nil
}

// The self-merge does not wait for what is stamped behind a full stream, which takes nothing until the
// self-merge has gone on; it does while the stream waits for the peers.
func TestNothingWaitsForAStreamThatIsFullOfWhatIsNotMerged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocalWAL(quietDB{end: 1000})
		var applied atomic.Uint64 // by the peers
		l.Reading(nil, nil, fullOf{&applied})
		l.Stamped(500)
		l.MergedTo(300)
		done := make(chan error, 1)
		go func() {
			_, err := l.WaitStamped(t.Context())
			done <- err
		}()
		<-time.After(time.Minute)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("%v while the peers have applied nothing", err)
		default:
		}
		applied.Store(300)
		<-time.After(time.Minute)
		applied.Store(400)
		if err := <-done; !errors.Is(err, tombstone.ErrStalled) {
			t.Errorf("%v while the stream waits for the self-merge, want %v", err, tombstone.ErrStalled)
		}
		began := time.Now()
		if _, err := l.WaitStamped(t.Context()); !errors.Is(err, tombstone.ErrStalled) || time.Since(began) < stuckFor {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		l.Stamped(1000)
		if _, err := l.WaitStamped(t.Context()); err != nil {
			t.Errorf("%v when all is stamped", err)
		}
	})
}

// endingDB notes when a session is ended.
type endingDB struct {
	LocalDB
	ended func(pid uint32)
}

func (d endingDB) Terminate(_ context.Context, pid uint32) error { d.ended(pid); return nil }
func (endingDB) Lookup(_ context.Context, _ wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error) {
	return make([]conflict.Item, len(refs)), nil
}

// An applier's transaction that stamping waits for gets more time with each try, so that one which takes
// long ends. Its sessions are known to have been ended here. Once it has committed something the wait is short again. One that
// gets on is given as long as it takes, one that does not no more than blockedMost.
func TestStampingWaitsLongerForWhatItEndedBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rel := wal.RelationName{Schema: "public", Name: "acct"}
		var l *LocalWAL
		var waits []time.Duration
		var began time.Time
		l = NewLocalWAL(endingDB{ended: func(pid uint32) {
			waits = append(waits, time.Since(began).Round(time.Second))
			if !l.EndedHere(pid) || l.EndedHere(pid) {
				t.Error("it is not known, once, that the session was ended here")
			}
			l.Settle("b", false)
		}})
		l.Reading(nil, countFlushes{new(int)}, nil)
		l.Stamped(250)
		try := func() {
			if _, ok := l.Blind("b", 7, rel, []string{"2"}); !ok {
				t.Fatal("the position is not known")
			}
			began = time.Now()
			if _, err := l.Below(t.Context(), 300, []tombstone.Ref{{Relation: rel, Key: "2"}}); err != nil {
				t.Fatal(err)
			}
		}
		for range 6 {
			try()
		}
		<-time.After(time.Hour)
		getsOn := time.NewTicker(time.Second)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-getsOn.C:
					l.Moved("b")
				case <-stop:
					return
				}
			}
		}()
		try()
		try()
		close(stop)
		l.Settle("b", true)
		try()
		want := []time.Duration{3 * time.Second, 6 * time.Second, 12 * time.Second, 24 * time.Second, 48 * time.Second, 48 * time.Second, 96 * time.Second, 192 * time.Second, 3 * time.Second}
		if !slices.Equal(waits, want) {
			t.Errorf("waited %v, want %v", waits, want)
		}
	})
}

// While a reading of the WAL is young nobody waits long for what is read and takes long to be merged: in a sidecar that is started again every few
// seconds nothing else would be done. Later, or for little, the wait is worth its while.
func TestAYoungReadingIsNotWaitedForUntilMuchIsMerged(t *testing.T) {
	t.Parallel()
	const end = 2 * farBehind
	for name, c := range map[string]struct {
		age    time.Duration
		oldest wal.LSN // own change that waits
		waits  time.Duration
	}{
		"much to merge":          {0, 100, time.Second},
		"little to merge":        {0, end - 100, 10 * time.Second},
		"much, but not so young": {youngFor + time.Second, 100, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLocalWAL(quietDB{end: end})
			rel := wal.RelationName{Schema: "public", Name: "acct"}
			l.Reading(nil, nil, nil)
			l.Note(rel, []byte("1"), tombstone.Place{Commit: c.oldest}, conflict.Item{Next: 1})
			l.Stamped(end)
			<-time.After(c.age)
			began := time.Now()
			if err := l.WaitMerged(t.Context(), 10*time.Second, time.Second); !errors.Is(err, ErrNotMerged) || time.Since(began).Round(100*time.Millisecond) != c.waits {
				t.Errorf("%s: %v after %s, want it after %s", name, err, time.Since(began), c.waits)
			}
			l.MergedTo(end)
			if err := l.WaitMerged(t.Context(), 10*time.Second, time.Second); err != nil {
				t.Errorf("%s: %v when all is merged", name, err)
			}
		})
	}
}
