package sidecar

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// What lies before the first frame of the present incarnation is known from when that frame is stored, also
// when parts of it have left the stream and the index.
func TestWhereAnIncarnationBegins(t *testing.T) {
	t.Parallel()
	var x seqIndex
	unknown := func(incarnation uint32, when string) {
		t.Helper()
		if got, known := x.before(incarnation); known || got != 0 {
			t.Errorf("%s: %d, %t", when, got, known)
		}
	}
	unknown(3, "before the first frame")
	x.add(wire.Header{Incarnation: 3, Number: 41}, 100)
	unknown(3, "behind a restart")
	x.add(wire.Header{Incarnation: 4, Number: 1}, 101)
	x.add(wire.Header{Incarnation: 4, Number: 2}, 102)
	begins := func(when string) {
		t.Helper()
		if got, known := x.before(4); !known || got != 100 {
			t.Errorf("%s: %d, %t, want what is below sequence 101", when, got, known)
		}
	}
	begins("two frames")
	unknown(5, "nothing is stored of the incarnation")
	if got := x.upTo(2); got != 102 {
		t.Errorf("up to the second frame: %d", got)
	}
	begins("the first frame has left")
	for n := uint64(3); n < 2*maxSeqs; n++ {
		x.add(wire.Header{Incarnation: 4, Number: n}, 100+n)
	}
	begins("the first frame is forgotten")
	x.add(wire.Header{Incarnation: 5, Number: 7}, 9000)
	unknown(5, "another incarnation")
}

// A frame of before the run at hand is known once it was looked up, and what lies up to it may leave the stream.
func TestRecalledFramesMayLeaveTheStream(t *testing.T) {
	t.Parallel()
	var x seqIndex
	x.add(wire.Header{Incarnation: 3, Number: 41}, 100)
	x.recalled(3, 20, 70)
	x.recalled(2, 30, 80) // of another incarnation
	x.recalled(3, 25, 75)
	x.recalled(3, 25, 75)
	for frame, want := range map[uint64]uint64{19: 0, 20: 70, 24: 70, 25: 75, 40: 75, 41: 100} {
		y := seqIndex{incarnation: 3, frames: slices.Clone(x.frames)}
		if got := y.upTo(frame); got != want {
			t.Errorf("up to frame %d: %d, want %d", frame, got, want)
		}
	}
}

// A peer that has committed nothing of an incarnation may be in the middle of its first transaction: parts that
// it has not applied yet stay in the stream, and parts that it has may go.
func TestHowFarAPeerIsInParts(t *testing.T) {
	t.Parallel()
	here, other := wal.Epoch{SystemID: 1, Timeline: 1, Slot: "s"}, wal.Epoch{SystemID: 2, Timeline: 1, Slot: "s"}
	for _, c := range []struct {
		name   string
		ack    broker.Ack
		counts bool
		want   uint64
	}{
		{"has committed in the incarnation", broker.Ack{Epoch: here, Incarnation: 17, Frame: 9}, true, 9},
		{"is in parts behind that", broker.Ack{Epoch: here, Incarnation: 17, Frame: 9, ReadIncarnation: 17, Read: 12}, true, 12},
		{"is in the first transaction of the incarnation", broker.Ack{Epoch: here, Incarnation: 2, Frame: 900, ReadIncarnation: 17, Read: 12}, false, 12},
		{"has not begun with it", broker.Ack{Epoch: here, Incarnation: 2, Frame: 900}, false, 0},
		{"is in parts of an earlier incarnation", broker.Ack{Epoch: here, Incarnation: 2, Frame: 900, ReadIncarnation: 16, Read: 40}, false, 0},
		{"reads another history", broker.Ack{Epoch: other, Incarnation: 17, Frame: 9, ReadIncarnation: 17, Read: 12}, false, 0},
	} {
		a := peerAck{Ack: c.ack}
		if got := a.inParts(here, 17, c.counts); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
