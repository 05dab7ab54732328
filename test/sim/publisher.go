package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// The publisher's half of the outbound pipe: frames go to the stream in order, each with the
// sequence number that it must follow.

// send hands frames over while the window has room.
func (o *outbound) send() {
	w := o.s.w
	for len(o.queue) > 0 && !o.s.r.stream.full && o.inFlight < w.cfg.Window {
		f := o.queue[0]
		o.queue = o.queue[1:]
		o.flying = append(o.flying, flight{number: f.Header.Number, end: f.Header.EndLSN})
		o.inFlight++
		last := o.expected
		o.expected++
		// One connection: what is sent later does not arrive earlier.
		at := time.Now().Add(w.span(50, 1500))
		if !at.After(o.arrival) {
			at = o.arrival.Add(time.Microsecond)
		}
		o.arrival = at
		o.s.step("before publish")
		// The message is under way: it arrives even if the sidecar dies now.
		w.after(time.Until(at), func() { o.arrive(f, last) })
	}
}

// arrive is the message at the stream, and its answer on the way back.
func (o *outbound) arrive(f wire.Frame, last uint64) {
	w, s := o.s.w, o.s
	seq, ok := s.r.stream.publish(last, f.MsgID, f.Data)
	w.note(s.r.id, "stored", seq, uint64(f.Header.EndLSN))
	if s.out != o || !s.up {
		return
	}
	if w.chance(3) {
		// The answer is lost: the publisher looks at the stream after its timeout.
		o.after(500*time.Millisecond, s.reopen)
		return
	}
	o.after(w.span(20, 800), func() {
		if !ok {
			w.note(s.r.id, "refused", last, 0)
			s.reopen()
			return
		}
		o.stored(f)
	})
}

// stored is a frame that is durable.
func (o *outbound) stored(f wire.Frame) {
	s := o.s
	o.inFlight--
	s.durable = max(s.durable, o.land(f.Header.Number))
	s.frame = f.Header.Number
	s.chains.Note(f.Header.Number, f.Header.Chain)
	o.sync()
	s.step("after publish")
	o.send()
	o.due()
	o.wake()
}

// sync brings to disk, some time later, what is stored by then.
func (o *outbound) sync() {
	w, s := o.s.w, o.s
	if !w.cfg.Lazy {
		s.synced = s.durable
		return
	}
	if o.syncing {
		return
	}
	o.syncing = true
	o.after(w.span(1000, 300_000), func() {
		o.syncing = false
		s.synced = s.durable
		s.r.stream.disk = s.r.stream.last
		s.step("synced")
	})
}

// flight is a frame that was sent; the answers come in any order.
type flight struct {
	number uint64
	end    wal.LSN
	stored bool
}

// land takes note of an answer. It returns the end of the frames that are stored without a gap.
func (o *outbound) land(number uint64) (end wal.LSN) {
	for i := range o.flying {
		if o.flying[i].number == number {
			o.flying[i].stored = true
		}
	}
	for len(o.flying) > 0 && o.flying[0].stored {
		// Frames that complete no position repeat the one before.
		if len(o.flying) == 1 || o.flying[1].end > o.flying[0].end {
			end = o.flying[0].end
		}
		o.flying = o.flying[1:]
	}
	return end
}
