package streamstore

import (
	"errors"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// What is stored comes back, a resync keeps the gap's reason until an incarnation closes it,
// and a new incarnation leaves nothing of the one before.
func TestStoredStream(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, Schema)
	e := wal.Epoch{SystemID: 1<<63 + 5, Timeline: 3, Slot: "pgwaltz_eu"}
	load := func() Row {
		t.Helper()
		r, err := Load(ctx, c, "eu")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if r := load(); r != (Row{}) {
		t.Errorf("no row: %+v", r)
	}
	must(Begin(ctx, c, "eu", 4, e, false))
	must(NoteLoose(ctx, c, "eu", 4, 77))
	must(NoteLoose(ctx, c, "eu", 3, 99)) // of a dead incarnation
	if r := load(); r.Incarnation != 4 || r.Reopened != 0 || r.Epoch != e || r.Loose != 77 || r.Gap || r.Resync {
		t.Errorf("begun: %+v", r)
	}
	must(NotePassed(ctx, c, "eu", 4, 1<<40+5))
	must(NotePassed(ctx, c, "eu", 4, 7))     // it is not lowered
	must(NotePassed(ctx, c, "eu", 3, 1<<50)) // of a dead incarnation
	if r := load(); r.Passed != 1<<40+5 {
		t.Errorf("passed: %s", r.Passed)
	}
	if first, err := NoteGap(ctx, c, "eu", 10, 20, true, "restored"); err != nil || !first {
		t.Errorf("the first note: %t, %v", first, err)
	}
	if first, err := NoteGap(ctx, c, "eu", 10, 30, false, "a peer misses WAL"); err != nil || first {
		t.Errorf("the second note: %t, %v", first, err)
	}
	if r := load(); !r.Gap || !r.History || r.Resync {
		t.Errorf("a gap: %+v", r)
	}
	if why, err := RequestResync(ctx, c, "eu"); err != nil || why != "a peer misses WAL" {
		t.Errorf("requested: %q, %v", why, err)
	}
	if r := load(); !r.Resync || r.Resynced.IsZero() {
		t.Errorf("requested: %+v", r)
	}
	must(Begin(ctx, c, "eu", 5, e, true))
	if r := load(); r.Incarnation != 5 || r.Reopened != 5 || r.Gap || r.History || r.Resync || r.Loose != 0 || r.Why != "" || r.Passed != 0 {
		t.Errorf("reopened: %+v", r)
	}
	must(NotePassed(ctx, c, "eu", 5, 9))
	for _, first := range []bool{true, false} { // asked twice before the incarnation opens: copied once
		if fresh, err := NoteNewcomer(ctx, c, "eu"); err != nil || fresh != first {
			t.Errorf("a newcomer: %t, %v", fresh, err)
		}
	}
	if r := load(); !r.Newcomer {
		t.Errorf("the newcomer is forgotten: %+v", r)
	}
	must(Begin(ctx, c, "eu", 6, e, false))
	for _, late := range []uint32{5, 6} { // of a sidecar that was frozen since it chose the number
		if err := Begin(ctx, c, "eu", late, e, true); !errors.Is(err, ErrFenced) {
			t.Errorf("incarnation %d behind the sixth: %v, want ErrFenced", late, err)
		}
	}
	if r := load(); r.Passed != 9 {
		t.Errorf("a new incarnation of the same WAL forgets what was passed: %+v", r)
	}
	if r := load(); r.Newcomer {
		t.Errorf("the newcomer has its incarnation: %+v", r)
	}
	if r := load(); r.Reopened != 5 {
		t.Errorf("the incarnation that admitted the gap is forgotten: %+v", r)
	}
	if why, err := RequestResync(ctx, c, "eu"); err != nil || why != "" {
		t.Errorf("without a gap: %q, %v", why, err)
	}
	e.Slot = "another"
	must(Begin(ctx, c, "eu", 7, e, false))
	if r := load(); r.Passed != 0 {
		t.Errorf("with another slot, passed is %s", r.Passed)
	}
	must(Settle(ctx, c, "eu"))
	if r := load(); r.Resync || r.Resynced.IsZero() {
		t.Errorf("settled: %+v", r)
	}
	if _, err := RequestResync(ctx, c, "us"); err != nil { // a region that never published
		t.Error(err)
	}
}
