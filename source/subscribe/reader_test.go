package subscribe_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	cluster = brokertest.Cluster
	origin  = "eu"
)

var epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "pgwaltz_eu"}

func limit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// writer puts frames into the origin's stream, by whatever rules the test has.
type writer struct {
	t   *testing.T
	js  jetstream.JetStream
	cfg wire.EncoderConfig
	enc *wire.Encoder
	lsn wal.LSN // of the origin's log: each transaction takes 10
}

func newWriter(t *testing.T, b *broker.Broker) *writer {
	t.Helper()
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, js: js, cfg: wire.EncoderConfig{Cluster: cluster, Origin: origin, Epoch: epoch}}
	w.create()
	w.incarnation(1, 0)
	return w
}

func (w *writer) create() {
	w.t.Helper()
	// The server may still be removing the folder of a stream that had the name before.
	brokertest.Until(w.t, "a stream", func() bool {
		_, err := w.js.CreateStream(limit(w.t), jetstream.StreamConfig{
			Name: wire.StreamName(cluster, origin), Subjects: []string{wire.Subject(cluster, origin)},
			Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxBytes: 32 << 20,
		})
		return err == nil
	})
}

func (w *writer) incarnation(n uint32, from wal.LSN) {
	w.enc = wire.NewEncoder(w.cfg, wire.Position{Incarnation: n, EndLSN: from})
	w.lsn = from
}

// frames cuts a packet of n transactions with size bytes in each.
func (w *writer) frames(n, size int, flags wire.Flags) []wire.Frame {
	w.t.Helper()
	for range n {
		tx := &wal.Transaction{
			XID: wal.XID(w.lsn), CommitLSN: w.lsn + 1, EndLSN: w.lsn + 10, CommitTime: 5,
			Messages: []wal.Message{{Prefix: "t", Content: []byte(strings.Repeat("x", size))}},
		}
		w.lsn += 10
		if err := w.enc.Add(tx); err != nil {
			w.t.Fatal(err)
		}
	}
	kind := wire.Data
	if n == 0 {
		kind = wire.Heartbeat
	}
	return w.enc.Cut(kind, flags, w.lsn, 1)
}

func (w *writer) store(data []byte) uint64 {
	w.t.Helper()
	a, err := w.js.Publish(limit(w.t), wire.Subject(cluster, origin), data)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Sequence
}

// write stores n packets of one transaction.
func (w *writer) write(n int) {
	w.t.Helper()
	for range n {
		for _, f := range w.frames(1, 100, 0) {
			w.store(f.Data)
		}
	}
}

func (w *writer) stream() jetstream.Stream {
	w.t.Helper()
	s, err := w.js.Stream(limit(w.t), wire.StreamName(cluster, origin))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// reader is a subscription whose deliveries are recorded.
type reader struct {
	t   *testing.T
	sub *subscribe.Subscription

	mu      sync.Mutex
	applied []wal.LSN // end of every transaction delivered
	cp      checkpoint.Checkpoint
	refused []subscribe.Refused
	asked   []subscribe.RewindRequest
	answer  func(subscribe.RewindRequest) subscribe.RewindReply
	stop    func()
}

// Request is the control plane of the test: it answers rewinds.
func (r *reader) Request(_ context.Context, region, verb string, data []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var req subscribe.RewindRequest
	if err := json.Unmarshal(data, &req); err != nil || region != origin || verb != subscribe.VerbRewind {
		return nil, errors.New("bad request")
	}
	r.asked = append(r.asked, req)
	if r.answer == nil {
		return nil, broker.ErrUnreachable
	}
	return json.Marshal(r.answer(req))
}

func start(t *testing.T, b *broker.Broker, from checkpoint.Checkpoint, change func(*subscribe.Config, *reader)) *reader {
	t.Helper()
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	from.Origin = origin
	r := &reader{t: t, cp: from}
	cfg := subscribe.Config{
		Cluster: cluster, Region: "us", Origin: origin, Conn: b.ConnOf(origin), JS: js, Control: r,
		Heartbeat: 200 * time.Millisecond, RewindDelay: 50 * time.Millisecond, RewindEvery: 300 * time.Millisecond, GapRetry: 300 * time.Millisecond,
		Quarantine: func(_ context.Context, m subscribe.Refused) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, m)
			return nil
		},
	}
	if change != nil {
		change(&cfg, r)
	}
	r.sub = subscribe.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.sub.Run(ctx, from, r.deliver) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *reader) deliver(_ context.Context, d subscribe.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := checkpoint.MustAdvance(r.cp, d.Checkpoint, d.Resync); err != nil {
		return err
	}
	if d.NewIncarnation != (d.Checkpoint.Incarnation != r.cp.Incarnation) {
		return errors.New("NewIncarnation is wrong")
	}
	if d.Resync { // positions of another history
		r.applied = nil
	}
	for _, tx := range d.Packet.Transactions {
		if n := len(r.applied); n > 0 && tx.EndLSN <= r.applied[n-1] {
			return errors.New("a transaction came twice")
		}
		r.applied = append(r.applied, tx.EndLSN)
	}
	r.cp = d.Checkpoint
	return nil
}

// at waits until everything up to lsn is delivered, and each transaction of 10 bytes once.
func (r *reader) at(lsn wal.LSN) {
	r.t.Helper()
	brokertest.Until(r.t, "delivery up to "+lsn.String(), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.cp.EndLSN >= lsn
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, l := range r.applied {
		if l != r.applied[0]+wal.LSN(10*i) {
			r.t.Fatalf("transactions delivered: %v", r.applied)
		}
	}
	if n := len(r.applied); n > 0 && r.applied[n-1] != lsn {
		r.t.Fatalf("delivered up to %s, want %s", r.applied[n-1], lsn)
	}
}

func (r *reader) reasons() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, m := range r.refused {
		all = append(all, m.Reason)
	}
	return strings.Join(all, "\n")
}
