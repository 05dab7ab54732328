package sidecar

import (
	"context"
	"log/slog"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A peer whose word changes every second between what is so and what never was does not have the
// stream begun anew each time.
func TestChangingAcknowledgementsHaveABudget(t *testing.T) {
	t.Parallel()
	s := &Sidecar{epoch: wal.Epoch{SystemID: 1, Timeline: 1}, log: slog.New(slog.DiscardHandler)}
	o := &s.out
	o.acks, o.incarnation = map[string]peerAck{}, 3
	o.pipe, o.live = &replicator.Outbound{}, true
	o.chains.Begin(3, 10, [32]byte{1})
	o.frame.Store(10)
	renewed := 0
	o.reopen = context.CancelCauseFunc(func(error) { renewed++ })
	for i := range 400 {
		a := broker.Ack{Peer: "b", Epoch: s.epoch, Incarnation: 3, Frame: 10, Chain: "01" + zeros(62), EndLSN: 5, Proved: 5}
		if i%2 == 1 {
			a.Frame = 1 << 40
		}
		held := o.acks["b"]
		held.Ack = a
		o.acks["b"] = held
		s.judgeAcks(o.words(), 100)
	}
	if renewed == 0 || renewed > rewindBurst+2 {
		t.Errorf("%d new incarnations were begun", renewed)
	}
	before := renewed
	held := o.acks["b"]
	held.Incarnation = 1<<32 - 1
	o.acks["b"] = held
	s.judgeAcks(o.words(), 100)
	if held = o.acks["b"]; renewed != before || held.said != checkpoint.Senseless {
		t.Errorf("an incarnation far ahead is judged %d, and %d more were begun", held.said, renewed-before)
	}
}

// What a peer says of a frame that this run does not remember counts as far as frames of it were found in the
// stream: not further, not of a run before, and not when the peer itself is behind that.
func TestRecalledAcknowledgementsCount(t *testing.T) {
	t.Parallel()
	s := &Sidecar{epoch: wal.Epoch{SystemID: 1, Timeline: 1}, cfg: &config.Config{Peers: []config.Peer{{Region: "b"}}}}
	o := &s.out
	o.acks, o.incarnation = map[string]peerAck{}, 3
	o.chains.Begin(3, 100, [32]byte{1})
	o.frame.Store(100)
	o.seqs.add(wire.Header{Incarnation: 3, Number: 100}, 1100)
	at := func(frame uint64) broker.Ack {
		return broker.Ack{Peer: "b", Epoch: s.epoch, Incarnation: 3, Frame: frame, Chain: zeros(64), StreamSeq: 1000 + frame, EndLSN: wal.LSN(10 * frame), Proved: wal.LSN(10 * frame)}
	}
	say := func(a broker.Ack) {
		held := o.acks["b"]
		held.Ack = a
		o.acks["b"] = held
	}
	want := func(when string, frame uint64) {
		t.Helper()
		if _, got := s.ackedFrame(); got != frame || s.passedByAll() != wal.LSN(10*frame) {
			t.Errorf("%s: frame %d, passed %d; want %d", when, got, s.passedByAll(), frame)
		}
	}
	say(at(40))
	want("not looked up", 0)
	far := s.distant()
	if len(far) != 1 || far[0].Frame != 40 {
		t.Fatalf("to be looked up: %+v", far)
	}
	say(at(44)) // it goes on while the stream is asked
	o.recalls(far[0])
	want("found", 40)
	if o.seqs.upTo(44) != 1040 {
		t.Error("where the frame lies is not remembered")
	}
	if far = s.distant(); len(far) != 1 || far[0].Frame != 44 {
		t.Errorf("to be looked up next: %+v", far)
	}
	o.recalls(far[0])
	want("found again", 44)
	if far = s.distant(); len(far) != 0 {
		t.Errorf("looked up already: %+v", far)
	}
	say(at(43))
	want("the peer has lost something", 0)
	say(at(60))
	want("and is beyond it again", 44)
	a := at(70)
	a.Incarnation = 2
	say(a)
	want("of an incarnation before", 0)
	say(at(60))
	o.forgetRecalled()
	want("in the next run", 0)
	o.frame.Store(30) // of which the stream has lost what was found
	want("of a frame that is not in the stream", 0)
}

func zeros(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0'
	}
	return string(b)
}
