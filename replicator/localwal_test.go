package replicator

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestStampingHandsOnWhatItWaitsFor: stamping that waits for an applier first, and then for own
// changes that the pipe has gathered, hands these on.
func TestStampingHandsOnWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocalWAL(nil)
		l.Index = tombstone.NewLimitedIndex(tombstone.Limits{Own: 1})
		rel := wal.RelationName{Schema: "public", Name: "acct"}
		flushed := 0
		l.Reading(nil, func() error { flushed++; return nil })
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
		l.MergedTo(250)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
