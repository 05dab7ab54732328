package sidecar

import (
	"context"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/wal"
)

// recallEvery is how often the stream is asked for the frames of peers that are far behind.
const recallEvery = time.Second

// recall looks up, until the context ends, the frames that peers acknowledge and that lie before the run at hand: a
// process remembers the chains of what it has published itself only. A peer that is further behind than
// that would hold slot and stream until it has caught up with where the run began, which in short lives it never does.
func (s *Sidecar) recall(ctx context.Context, stream *publish.Publisher) error {
	rest := recallEvery
	for {
		if err := pause.For(ctx, rest); err != nil {
			return err
		}
		began := time.Now()
		for _, a := range s.distant() {
			w := a.word()
			held, err := stream.Holds(ctx, a.StreamSeq, w.Incarnation, w.Frame, w.Chain)
			if err != nil {
				s.log.Debug("recall a frame", "peer", a.Peer, "reason", err.Error())
				continue
			}
			if held {
				s.out.recalls(a)
			}
		}
		rest = max(recallEvery, 20*time.Since(began)) // a frame may be large, and the link to the stream slow
	}
}

// distant are the newest acknowledgements of frames that this run does not remember.
func (s *Sidecar) distant() []peerAck {
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.present(s.epoch, ^wal.LSN(0))
	var out []peerAck
	for _, p := range s.readers() {
		if a := o.acks[p]; a.word().Judge(now) == checkpoint.Distant && (a.recalled.Incarnation != a.Incarnation || a.recalled.Frame != a.Frame) {
			out = append(out, a)
		}
	}
	return out
}

// recalls takes note of an acknowledgement whose frame is in the stream of the run at hand.
func (o *outboundState) recalls(a peerAck) {
	o.mu.Lock()
	defer o.mu.Unlock()
	held := o.acks[a.Peer]
	held.recalled = a.Ack
	o.acks[a.Peer] = held
	o.seqs.recalled(a.Incarnation, a.Frame, a.StreamSeq)
}

// forgetRecalled forgets them: a new run begins, and the stream may have lost its end since. The caller holds mu.
func (o *outboundState) forgetRecalled() {
	for p, a := range o.acks {
		a.recalled.Incarnation = 0
		o.acks[p] = a
	}
}
