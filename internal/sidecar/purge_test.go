package sidecar

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A stream that is full waits for the self-merge only where all peers have something that it has not: with
// what it has committed, or with what it has read of a transaction in parts.
func TestWhatAFullStreamWaitsFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		peer   broker.Ack
		merged wal.LSN
		done   uint64 // frame behind the self-merge's newest commit
		doneOf uint32
		read   uint64 // of a transaction in parts
		readOf uint32
		waits  bool
	}{
		"a peer that is away has less":                     {broker.Ack{Frame: 5, Proved: 50}, 90, 9, 3, 0, 0, false},
		"it has as much":                                   {broker.Ack{Frame: 9, Proved: 90}, 90, 9, 3, 0, 0, false},
		"it has more":                                      {broker.Ack{Frame: 9, Proved: 90}, 50, 5, 3, 0, 0, true},
		"it has more of a transaction in parts":            {broker.Ack{Frame: 5, Read: 9, Proved: 50}, 50, 5, 3, 7, 3, true},
		"it has less of one":                               {broker.Ack{Frame: 5, Read: 7, Proved: 50}, 50, 5, 3, 9, 3, false},
		"it has committed one that the self-merge has not": {broker.Ack{Frame: 9, Proved: 50}, 50, 5, 3, 7, 3, true},
		"the self-merge is in an earlier incarnation":      {broker.Ack{Frame: 2, Proved: 50}, 50, 9, 2, 9, 2, true},
		"nobody else reads":                                {broker.Ack{Deaf: true}, 50, 5, 3, 0, 0, true},
	} {
		s := &Sidecar{epoch: wal.Epoch{SystemID: 1, Timeline: 1}, cfg: &config.Config{Peers: []config.Peer{{Region: "b"}}}}
		o := &s.out
		o.incarnation = 3
		o.chains.Begin(3, 0, [32]byte{})
		for f := uint64(1); f <= 10; f++ {
			o.chains.Note(f, [32]byte{})
		}
		o.frame.Store(10)
		a := c.peer
		a.Peer, a.Epoch, a.Incarnation, a.ReadIncarnation, a.EndLSN = "b", s.epoch, 3, 3, a.Proved
		o.acks = map[string]peerAck{"b": {Ack: a}}
		o.selfDone(c.doneOf, c.done)
		o.selfRead(c.readOf, c.read)
		if got := s.awaitsMerge(c.merged); got != c.waits {
			t.Errorf("%s: waits for the self-merge: %t", name, got)
		}
	}
}

// Frames of earlier incarnations leave a stream that is full. Those of the present one stay, also where another process
// has stored them: a peer that is away has read none of them.
func TestWhatIsOutdatedInAFullStream(t *testing.T) {
	t.Parallel()
	o := &outboundState{}
	o.seqs.add(wire.Header{Incarnation: 2, Number: 70}, 90)
	if got := o.outdatedUpTo(3, 90); got != 90 {
		t.Errorf("nothing of it is stored: up to %d", got)
	}
	o.seqs.add(wire.Header{Incarnation: 3, Number: 1}, 91)
	o.frame.Store(1)
	if got := o.outdatedUpTo(3, 91); got != 90 {
		t.Errorf("this process has stored its first frame: up to %d", got)
	}
	o = &outboundState{}
	o.seqs.add(wire.Header{Incarnation: 3, Number: 40}, 130)
	o.frame.Store(40)
	if got := o.outdatedUpTo(3, 130); got != 0 {
		t.Errorf("another process has stored its first frame: up to %d", got)
	}
}
