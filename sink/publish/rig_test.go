package publish_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	cluster = brokertest.Cluster
	origin  = "eu"
)

var epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "pgwaltz_eu"}

// frame cuts one frame with about size bytes of payload that do not compress.
func frame(enc *wire.Encoder, size int) wire.Frame {
	at := enc.Position().EndLSN
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	tx := &wal.Transaction{XID: wal.XID(at), CommitLSN: at + 1, EndLSN: at + 2, Messages: []wal.Message{{Prefix: "t", Content: content}}}
	if err := enc.Add(tx); err != nil {
		panic(err)
	}
	frames := enc.Cut(wire.Data, 0, at+2, 0)
	if len(frames) != 1 {
		panic("the test wants one frame")
	}
	return frames[0]
}

// rig is a publisher at work.
type rig struct {
	t    *testing.T
	b    *broker.Broker
	pub  *publish.Publisher
	enc  *wire.Encoder
	tail publish.Tail
	done chan struct{}
	err  error // of Run, once done is closed

	mu      sync.Mutex
	durable []uint64 // frame numbers as OnDurable told them
	foreign int
}

// publisher opens the stream and goes on after its tail, or in the incarnation given.
func publisher(t *testing.T, b *broker.Broker, incarnation uint32, change func(*publish.Config)) *rig {
	t.Helper()
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, b: b, done: make(chan struct{})}
	cfg := publish.Config{
		Cluster: cluster, Origin: origin, Conn: b.Conn(), JS: js, MaxBytes: 16 << 20,
		AckTimeout: 500 * time.Millisecond, FullRetry: 100 * time.Millisecond, Repair: b.Restart,
		OnDurable: func(h wire.Header, _ uint64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.durable = append(r.durable, h.Number)
		},
		OnForeign: func(publish.ForeignMessage) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.foreign++
		},
	}
	if change != nil {
		change(&cfg)
	}
	r.pub = publish.New(cfg)
	if r.tail, err = r.pub.Open(limit(t)); err != nil {
		t.Fatal(err)
	}
	pos := r.tail.Header.Position()
	if incarnation != 0 {
		pos = wire.Position{Incarnation: incarnation, EndLSN: pos.EndLSN}
	}
	r.enc = wire.NewEncoder(wire.EncoderConfig{Cluster: cluster, Origin: origin, Epoch: epoch}, pos)
	if err := r.pub.Start(pos, r.tail); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		r.err = r.pub.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

func limit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (r *rig) publish(n, size int) error {
	for range n {
		if err := r.pub.Publish(limit(r.t), []wire.Frame{frame(r.enc, size)}); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) mustPublish(n, size int) {
	r.t.Helper()
	if err := r.publish(n, size); err != nil {
		r.t.Fatal(err)
	}
}

// settled waits until everything published is durable.
func (r *rig) settled() {
	r.t.Helper()
	brokertest.Until(r.t, "acknowledgements", func() bool {
		s := r.pub.State()
		if s.Err != nil && !s.Full && !s.Holding {
			r.t.Fatalf("the publisher ended: %v", s.Err)
		}
		return s.InFlight == 0 && s.Durable == r.enc.Position()
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.durable {
		if n != r.durable[0]+uint64(i) {
			r.t.Fatalf("durable frames %v", r.durable)
		}
	}
}

func (r *rig) ends(want error) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-limit(r.t).Done():
		r.t.Fatalf("the publisher goes on: %+v", r.pub.State())
	}
	if !errors.Is(r.err, want) {
		r.t.Fatalf("ended with %v, want %v", r.err, want)
	}
	if err := r.publish(1, 10); !errors.Is(err, want) {
		r.t.Fatalf("publish afterwards: %v, want %v", err, want)
	}
}

func stream(t testing.TB, b *broker.Broker) jetstream.Stream {
	t.Helper()
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(limit(t), wire.StreamName(cluster, origin))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkChain reads the whole stream: own frames have to form one chain, each once.
func checkChain(t *testing.T, b *broker.Broker, want uint64) {
	t.Helper()
	s := stream(t, b)
	var last wire.Position
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(limit(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		h, err := wire.ParseHeader(m.Data)
		if errors.Is(err, wire.ErrNotFrame) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Number != last.Number+1 || h.PrevChain != last.Chain {
			t.Fatalf("frame %d follows frame %d at sequence %d", h.Number, last.Number, seq)
		}
		last = h.Position()
	}
	if last.Number != want {
		t.Fatalf("%d frames in the stream, want %d", last.Number, want)
	}
}
