package sim

import (
	"time"

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
		w.must(o.tracker.Note(f.Header.EndLSN))
		if n := o.tracker.Outstanding(); n > w.cfg.Window {
			w.fail("the tracker waits for %d frames, the window is %d", n, w.cfg.Window)
		}
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
	o.s.w.must(o.tracker.Done(f.Header.EndLSN))
	o.inFlight--
	s.durable = max(s.durable, o.tracker.Safe())
	s.frame = f.Header.Number
	s.chains.Note(f.Header.Number, f.Header.Chain)
	s.step("after publish")
	o.send()
	o.due()
	o.wake()
}
