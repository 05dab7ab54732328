package sidecar

import (
	"context"
	"log/slog"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/wal"
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

func zeros(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0'
	}
	return string(b)
}
