package broker

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Which word of a peer is the newer one is told by its numbers and frames, not by its clock.
func TestAckOrder(t *testing.T) {
	t.Parallel()
	here := wal.Epoch{SystemID: 1, Timeline: 1, Slot: "s"}
	old := Ack{Peer: "us", Epoch: here, Incarnation: 3, Frame: 50, At: 100, Session: 7, Number: 20}
	for name, c := range map[string]struct {
		change        func(*Ack)
		silent, after bool
	}{
		"the same again":               {func(*Ack) {}, false, false},
		"an older one, later clock":    {func(a *Ack) { a.Number, a.At = 19, 1<<60 }, true, false},
		"the next, clock set back":     {func(a *Ack) { a.Number, a.At = 21, 1 }, false, true},
		"the next, behind":             {func(a *Ack) { a.Number, a.Frame = 21, 10 }, false, true},
		"a new run, further":           {func(a *Ack) { a.Session, a.Number, a.Frame = 8, 1, 51 }, false, true},
		"a new run, new incarnation":   {func(a *Ack) { a.Session, a.Number, a.Incarnation, a.Frame = 8, 1, 4, 1 }, false, true},
		"a new run, other WAL":         {func(a *Ack) { a.Session, a.Number, a.Epoch, a.Frame = 8, 1, wal.Epoch{SystemID: 2}, 1 }, false, true},
		"recorded before, sent again":  {func(a *Ack) { a.Session, a.Number, a.Frame, a.At = 6, 99, 20, 1<<60 }, false, false},
		"a new run that lost frames":   {func(a *Ack) { a.Session, a.Number, a.Frame = 8, 4, 20 }, true, true},
		"a new run, older incarnation": {func(a *Ack) { a.Session, a.Number, a.Incarnation, a.Frame = 8, 1, 2, 999 }, false, false},
	} {
		a := old
		c.change(&a)
		if got := a.After(&old, c.silent); got != c.after {
			t.Errorf("%s: %v, want %v", name, got, c.after)
		}
	}
}
