package pgstore_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// What was applied at a gap stays known while more is applied, and each beginning of a peer is answered
// once, when it is applied.
func TestGapsAreAnsweredOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, "create schema pgwaltz", pgstore.Schema)
	at := checkpoint.Checkpoint{Origin: "eu", Incarnation: 4, FrameNo: 7}
	if _, err := pgstore.Init(ctx, conn, at); err != nil {
		t.Fatal(err)
	}
	if err := pgstore.NoteKnown(ctx, conn); err != nil {
		t.Fatal(err)
	}
	next := at
	next.FrameNo = 8
	if err := save(ctx, conn, at, next); err != nil {
		t.Fatal(err)
	}
	if known, err := pgstore.Known(ctx, conn); err != nil || known["eu"] != (pgstore.Place{Incarnation: 4, Frame: 7}) {
		t.Errorf("known at the gap: %v, %v", known, err)
	}
	for _, step := range []struct {
		origin      string
		incarnation uint32
		due, done   bool
	}{{"eu", 5, false, false}, {"eu", 4, true, true}, {"eu", 4, false, true}, {"eu", 3, false, true}, {"ap", 1, false, false}} {
		if due, done, err := pgstore.Answer(ctx, conn, step.origin, step.incarnation); due != step.due || done != step.done || err != nil {
			t.Errorf("%+v: %t, %t, %v", step, due, done, err)
		}
	}
}
