package replicator

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestConfirmedOnlyWithTheClockStored: no position is confirmed before what the times behind it
// depend on is stored.
func TestConfirmedOnlyWithTheClockStored(t *testing.T) {
	t.Parallel()
	l := NewLocalWAL(nil)
	k := NewClockKeeper(l, nil)
	k.Begin(100, []tombstone.ClockAt{{LSN: 100, High: 7}})
	want := func(lsn, allowed, stored wal.LSN) {
		t.Helper()
		k.want = 0
		if got := k.To(lsn); got != allowed || k.want != stored {
			t.Errorf("to %d: %d, and %d is to be stored; want %d and %d", lsn, got, k.want, allowed, stored)
		}
	}
	want(150, 100, 0) // nothing is decoded yet
	l.Stamped(155)
	want(150, 150, 0) // nothing in between had a time
	l.Clock(160, 1000)
	want(155, 155, 0)
	want(200, 155, 0) // an earlier process may have decoded more; this one knows nothing of it
	l.Stamped(300)
	want(200, 100, 200)
	k.note(tombstone.ClockAt{LSN: 200, High: 1000})
	want(200, 200, 0)
	want(300, 300, 0)
	l.Clock(310, 900) // the server's clock was set back
	l.Stamped(320)
	want(320, 200, 320)
	if at, high := l.ClockAt(320); at != 320 || high != 1001 {
		t.Errorf("%d, %d", at, high)
	}
	want(90, 0, 0) // in front of the beginning: it was confirmed before
}

// The clock may be stored ahead of what is confirmed. A position between two that are stored is not
// confirmed without its own; what lies in front of the confirmed one is forgotten.
func TestClockStoredAhead(t *testing.T) {
	t.Parallel()
	k := &ClockKeeper{}
	for _, at := range []wal.LSN{100, 300, 200, 300} {
		k.note(tombstone.ClockAt{LSN: at, High: wal.Micros(at) / 10})
	}
	for at, want := range map[wal.LSN]wal.LSN{99: 0, 100: 100, 250: 200, 300: 300, 900: 300} {
		if got := k.last(at); got.LSN != want || got.High != wal.Micros(want)/10 {
			t.Errorf("at %d: %v, want that of %d", at, got, want)
		}
	}
	k.forget(250)
	if got := ClockPositions(k.stored); !slices.Equal(got, []wal.LSN{200, 300}) {
		t.Errorf("left behind 250: %v", got)
	}
	k.forget(50)
	if got := ClockPositions(k.stored); len(got) != 2 {
		t.Errorf("left behind 50: %v", got)
	}
}
