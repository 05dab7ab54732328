package replicator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// fakeWAL hands out items and counts what was given back.
type fakeWAL struct {
	items chan slot.Item
	taken int
}

func (l *fakeWAL) Items() <-chan slot.Item { return l.items }
func (l *fakeWAL) Taken(slot.Item)         { l.taken++ }
func (l *fakeWAL) Ping()                   {}

// fakeStream keeps frames; held frames count as under way.
type fakeStream struct {
	mu     sync.Mutex
	frames []wire.Frame
	held   bool
}

func (s *fakeStream) Publish(_ context.Context, fs []wire.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, fs...)
	return nil
}

func (s *fakeStream) InFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return len(s.frames)
	}
	return 0
}

func (s *fakeStream) packets(t *testing.T) (kinds []wire.Kind, txs []int, ends []wal.LSN) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := wire.NewAssembler(0, nil)
	for _, f := range s.frames {
		raw, err := wire.Parse(f.Data)
		if err != nil {
			t.Fatal(err)
		}
		p, err := a.Add(raw)
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			kinds, txs, ends = append(kinds, raw.Kind), append(txs, len(p.Transactions)), append(ends, raw.EndLSN)
		}
	}
	return kinds, txs, ends
}

// openGate lets everything through.
type openGate struct{}

func (openGate) LeftOut(wal.RelationName, wal.LSN) bool { return false }
func (openGate) Changed(*wal.Transaction)               {}
func (openGate) TooLarge(*wal.Relation, wal.Op, int)    {}
func (openGate) Settle(context.Context) error           { return nil }

func newOutbound(stream Stream, tail wire.Position, extra <-chan Extra) *Outbound {
	s, _ := newStamper()
	return NewOutbound(OutboundConfig{
		Encoder: wire.EncoderConfig{Cluster: "c", Origin: "a", Epoch: wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}},
		Tail:    tail, Stamper: s, Gate: openGate{}, FrameBytes: 1 << 20, Linger: 3 * time.Millisecond, Heartbeat: 10 * time.Second, Extra: extra,
	}, stream, &OutboundStats{})
}

func ins(lsn wal.LSN, id string) *wal.Transaction {
	t := tx(lsn, wal.Change{Op: wal.Insert, Relation: acct(), New: tuple(id, "v", "1", "2024-01-01"+day)})
	t.CommitTime = wal.MicrosOf(time.Now())
	return t
}

func TestOutboundFramesAtOnceWhenIdleAndGathersOtherwise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, stream := &fakeWAL{items: make(chan slot.Item)}, &fakeStream{}
		o := newOutbound(stream, wire.Position{Incarnation: 1, EndLSN: 50}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx, in) }()
		in.items <- slot.Item{Transactions: []*wal.Transaction{ins(100, "1")}, Decoded: 150}
		synctest.Wait()
		stream.mu.Lock()
		stream.held = true
		stream.mu.Unlock()
		in.items <- slot.Item{Transactions: []*wal.Transaction{ins(200, "2")}, Decoded: 250}
		in.items <- slot.Item{Transactions: []*wal.Transaction{ins(300, "3")}, Decoded: 350}
		synctest.Wait()
		if _, txs, _ := stream.packets(t); len(txs) != 2 {
			t.Errorf("packets %v while a frame is under way", txs)
		}
		<-time.After(4 * time.Millisecond) // fake time: the linger
		synctest.Wait()
		kinds, txs, ends := stream.packets(t)
		if len(kinds) != 3 || kinds[0] != wire.Heartbeat || txs[1] != 1 || txs[2] != 2 || ends[2] != 350 {
			t.Errorf("kinds %v, transactions %v, ends %v", kinds, txs, ends)
		}
		<-time.After(13 * time.Second) // fake time: the heartbeat interval
		synctest.Wait()
		if kinds, _, _ := stream.packets(t); kinds[len(kinds)-1] != wire.Heartbeat {
			t.Errorf("no heartbeat in a quiet stream: %v", kinds)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
		if in.taken != 3 {
			t.Errorf("%d items given back", in.taken)
		}
	})
}

func TestOutboundLeavesOutWhatTheStreamHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, stream := &fakeWAL{items: make(chan slot.Item)}, &fakeStream{}
		first := ins(100, "1")
		o := newOutbound(stream, wire.Position{Incarnation: 1, Number: 4, EndLSN: 150}, nil)
		o.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(first), 150, 50)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go o.Run(ctx, in)
		in.items <- slot.Item{Transactions: []*wal.Transaction{first, ins(200, "2")}, Decoded: 250}
		synctest.Wait()
		if !o.Proven() {
			t.Error("the transaction was shown, and nothing is proved")
		}
		if _, txs, ends := stream.packets(t); len(txs) != 1 || txs[0] != 1 || ends[0] != 250 {
			t.Errorf("transactions %v, ends %v", txs, ends)
		}
	})
}

func TestOutboundHoldsCopiedRowsBackUntilTheirPosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		extra := make(chan Extra, 1)
		in, stream := &fakeWAL{items: make(chan slot.Item)}, &fakeStream{}
		o := newOutbound(stream, wire.Position{Incarnation: 1, Number: 4, EndLSN: 50}, extra)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go o.Run(ctx, in)
		framed := make(chan wire.Header, 1)
		extra <- Extra{Kind: wire.Copy, After: 200, Transactions: []*wal.Transaction{ins(10, "9")}, Done: func(h wire.Header) { framed <- h }}
		in.items <- slot.Item{Transactions: []*wal.Transaction{ins(100, "1")}, Decoded: 150}
		synctest.Wait()
		if kinds, _, _ := stream.packets(t); len(kinds) != 1 || kinds[0] != wire.Data {
			t.Errorf("kinds %v before the position", kinds)
		}
		in.items <- slot.Item{Decoded: 200}
		h := <-framed
		if h.Kind != wire.Copy || h.EndLSN != 150 {
			t.Errorf("copied rows went out as %v with end %v", h.Kind, h.EndLSN)
		}
	})
}

// TestOutboundProvesWithoutStamping: when stamping waits for the self-merge, and that for the proof,
// the WAL is proved by a reading that stamps and publishes nothing.
func TestOutboundProvesWithoutStamping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, stream := &fakeWAL{items: make(chan slot.Item)}, &fakeStream{}
		mark := ins(200, "2")
		o := newOutbound(stream, wire.Position{Incarnation: 1, Number: 4, EndLSN: 250}, nil)
		o.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(mark), 250, 50)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- o.Prove(ctx, in) }()
		first := ins(100, "1")
		in.items <- slot.Item{Transactions: []*wal.Transaction{first}, Decoded: 150}
		synctest.Wait()
		if err := o.Flush(); !errors.Is(err, ErrUnproved) {
			t.Errorf("before the proof what is gathered can be handed on: %v", err)
		}
		in.items <- slot.Item{Transactions: []*wal.Transaction{mark}, Decoded: 250}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if first.Changes[0].Stamp != (wal.Stamp{}) {
			t.Error("a change was stamped")
		}
		go o.Run(ctx, in)
		synctest.Wait()
		if !o.Proven() {
			t.Error("the WAL is not proved at the second reading")
		}
		in.items <- slot.Item{Transactions: []*wal.Transaction{first, mark, ins(300, "3")}, Decoded: 350}
		synctest.Wait()
		if _, txs, ends := stream.packets(t); len(txs) != 1 || txs[0] != 1 || ends[0] != 350 {
			t.Errorf("transactions %v, ends %v", txs, ends)
		}
	})
}

// TestOutboundDoesNotProveAnotherHistory: a server that was restored does not show what was published.
func TestOutboundDoesNotProveAnotherHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := &fakeWAL{items: make(chan slot.Item, 1)}
		o := newOutbound(&fakeStream{}, wire.Position{Incarnation: 1, Number: 4, EndLSN: 250}, nil)
		o.cfg.Past = checkpoint.NewRepetition(wal.MarkOf(ins(200, "2")), 250, 50)
		in.items <- slot.Item{Transactions: []*wal.Transaction{ins(220, "2")}, Decoded: 270}
		if err := o.Prove(t.Context(), in); !errors.Is(err, checkpoint.ErrHistory) {
			t.Errorf("the other history gives %v", err)
		}
	})
}
