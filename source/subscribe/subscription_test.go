package subscribe_test

import (
	"context"
	"crypto/ed25519"
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

func TestSubscription(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(50)
	r := start(t, b, checkpoint.Checkpoint{}, nil)
	r.at(500)
	w.write(20)
	for _, f := range w.frames(3, 1_500_000, 0) { // fragments
		w.store(f.Data)
	}
	for _, f := range w.frames(0, 0, 0) {
		w.store(f.Data)
	}
	r.at(w.lsn)
	brokertest.Until(t, "the last frame", func() bool { return r.sub.State().Backlog == 0 })
	s := r.sub.State()
	if !s.Reachable || s.OriginLSN != w.lsn || s.Backlog != 0 || s.Gap != nil || s.Refused != 0 || s.Duplicates != 0 || s.Read.Transactions != 73 {
		t.Errorf("state %+v", s)
	}

	// Again from the checkpoint, and from none.
	r.stop()
	w.write(5)
	again := start(t, b, r.cp, nil)
	again.at(w.lsn)
	if len(again.applied) != 5 {
		t.Errorf("%d transactions after a restart", len(again.applied))
	}
	all := start(t, b, checkpoint.Checkpoint{}, nil)
	all.at(w.lsn)

	// A checkpoint whose sequence has nothing to do with this stream.
	for _, seq := range []uint64{1, 3, 1000} {
		cp := r.cp
		cp.StreamSeq = seq
		start(t, b, cp, nil).at(w.lsn)
	}
}

// The link is cut again and again, and messages come over it meanwhile.
func TestSubscriptionFlaps(t *testing.T) {
	t.Parallel()
	p := brokertest.StartPair(t)
	w := newWriter(t, p.EU)
	r := start(t, p.US, checkpoint.Checkpoint{}, nil)
	for i := range 6 {
		w.write(20)
		if i%2 == 0 {
			p.Link.CloseConns()
		} else {
			p.Link.Cut()
			brokertest.Until(t, "the cut to be noticed", func() bool { return !r.sub.State().Reachable })
			w.write(5)
			p.Link.Heal()
		}
	}
	r.at(w.lsn)
}

// Whatever else is on the subject is refused with a reason, and the real frames flow.
func TestSubscriptionBadMessages(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	r := start(t, b, checkpoint.Checkpoint{}, nil)
	w.write(5)
	r.at(w.lsn)
	for round := range 3 {
		good := w.frames(1, 100, 0)[0]
		flipped := append([]byte(nil), good.Data...)
		flipped[len(flipped)/2] ^= 1 << round
		version := append([]byte(nil), good.Data...)
		version[4] = 99
		other := w.cfg
		other.Origin = "ap"
		forged := wire.NewEncoder(other, wire.Position{Incarnation: 1}).Cut(wire.Heartbeat, 0, 1, 1)[0]
		other.Cluster, other.Origin = "elsewhere", origin
		elsewhere := wire.NewEncoder(other, wire.Position{Incarnation: 1}).Cut(wire.Heartbeat, 0, 1, 1)[0]
		old, err := w.stream().GetMsg(limit(t), 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range [][]byte{
			{}, []byte("garbage"), []byte(`{"a":1}`), []byte(strings.Repeat("[", 900_000)), good.Data[:50], flipped, version, forged.Data, elsewhere.Data,
			old.Data, good.Data, good.Data,
		} {
			w.store(data)
		}
		w.write(3)
		r.at(w.lsn)
	}
	got := r.reasons()
	for _, want := range []string{"not a pgwaltz frame", "cut short", "checksum", "version 99", `"test"/"ap"`, `"elsewhere"/"eu"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no message was refused for %q:\n%s", want, got)
		}
	}
	s := r.sub.State()
	if s.Refused != 27 || len(r.refused) != 27 || s.Duplicates < 6 || s.Gap != nil {
		t.Errorf("refused %d, state %+v", len(r.refused), s)
	}
	if len(r.asked) != 0 {
		t.Errorf("asked for a rewind: %+v", r.asked)
	}
}

// Frames stored out of order are delivered in order, without help of the origin.
func TestSubscriptionReordered(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(2)
	var f []wire.Frame
	for range 8 {
		f = append(f, w.frames(1, 100, 0)...)
	}
	for _, i := range []int{1, 0, 3, 2, 7, 6, 5, 4, 5} {
		w.store(f[i].Data)
	}
	r := start(t, b, checkpoint.Checkpoint{}, nil)
	r.at(w.lsn)
	w.write(200) // early frames are forgotten, and the sequence catches up
	r.at(w.lsn)
	if s := r.sub.State(); s.Gap != nil || s.Read.StreamSeq != s.LastSeq {
		t.Errorf("state %+v", s)
	}
}

// lose removes frames that were not delivered: it stores only what comes behind them.
func lose(w *writer, n int) {
	for range n {
		w.frames(1, 100, 0)
	}
}

// A hole makes the origin rewind; the new incarnation repeats some of what is known.
func TestSubscriptionRewind(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(10)
	ask := make(chan subscribe.RewindRequest, 16) // more than the test waits for
	r := start(t, b, checkpoint.Checkpoint{}, func(_ *subscribe.Config, r *reader) {
		r.answer = func(q subscribe.RewindRequest) subscribe.RewindReply {
			ask <- q
			return subscribe.RewindReply{Granted: true, Incarnation: 2, Start: 50}
		}
	})
	r.at(100)
	lose(w, 3)
	w.write(4)
	q := <-ask
	if q.Region != "us" || q.Checkpoint.EndLSN != 100 || q.Checkpoint.FrameNo != 10 {
		t.Errorf("asked %+v", q)
	}
	g := r.sub.State().Gap
	if g == nil || g.From != 100 || g.To != 130 || g.Refused != "" || g.Hint() == "" {
		t.Fatalf("gap %v", g)
	}
	end := w.lsn
	w.incarnation(2, 50)
	w.write(int(end-50)/10 + 5)
	r.at(w.lsn)
	if s := r.sub.State(); s.Gap != nil || s.Read.Incarnation != 2 {
		t.Errorf("state %+v", s)
	}
}

// The whole stream is purged, or deleted and made again, with what had not been delivered.
func TestSubscriptionStreamGone(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(w *writer){
		"purged": func(w *writer) {
			if err := w.stream().Purge(limit(w.t)); err != nil {
				w.t.Fatal(err)
			}
		},
		"deleted": func(w *writer) {
			if err := w.js.DeleteStream(limit(w.t), wire.StreamName(cluster, origin)); err != nil {
				w.t.Fatal(err)
			}
			w.create()
		},
		"deleted, and grown longer": func(w *writer) {
			if err := w.js.DeleteStream(limit(w.t), wire.StreamName(cluster, origin)); err != nil {
				w.t.Fatal(err)
			}
			w.create()
			for range 40 {
				w.store([]byte("filler"))
			}
		},
	} {
		for _, running := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " while reading", false: " while stopped"}[running], func(t *testing.T) {
				t.Parallel()
				b := brokertest.Start(t, broker.Config{Region: origin})
				w := newWriter(t, b)
				w.write(20)
				granted := func(_ *subscribe.Config, r *reader) {
					r.answer = func(subscribe.RewindRequest) subscribe.RewindReply { return subscribe.RewindReply{Granted: true} }
				}
				r := start(t, b, checkpoint.Checkpoint{}, granted)
				r.at(200)
				if !running {
					r.stop()
					w.write(7)
				}
				hurt(w)
				w.write(3) // the origin does not know yet
				if !running {
					r = start(t, b, r.cp, granted)
					brokertest.Until(t, "a request to rewind", func() bool { return r.sub.State().Rewinds > 0 })
				}
				end := w.lsn
				w.incarnation(2, 150)
				w.write(int(end-150)/10 + 3)
				r.at(w.lsn)
			})
		}
	}
}

// The origin cannot rewind: the hole is named, and a resync closes it.
func TestSubscriptionGap(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(10)
	r := start(t, b, checkpoint.Checkpoint{}, func(_ *subscribe.Config, r *reader) {
		r.answer = func(subscribe.RewindRequest) subscribe.RewindReply {
			return subscribe.RewindReply{Available: 120, Reason: "the slot was advanced"}
		}
	})
	r.at(100)
	lose(w, 2)
	w.write(4)
	brokertest.Until(t, "a refusal", func() bool { g := r.sub.State().Gap; return g != nil && g.Refused != "" })
	g := r.sub.State().Gap
	if g.From != 100 || g.To != 120 || g.Frame != 10 || !strings.Contains(g.Error(), "the slot was advanced") || !strings.Contains(g.Hint(), "resync") {
		t.Errorf("gap %v, %s", g, g.Hint())
	}
	// An incarnation that starts too late does not help; one that admits the gap does.
	w.incarnation(2, 120)
	w.write(3)
	w.incarnation(3, 120)
	for _, f := range w.frames(1, 10, wire.Resync) {
		w.store(f.Data)
	}
	brokertest.Until(t, "the resync", func() bool { s := r.sub.State(); return s.Gap == nil && s.Read.Incarnation == 3 })
	w.write(2)
	brokertest.Until(t, "what follows", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.cp.EndLSN == 150 })
	if len(r.applied) != 3 || r.applied[0] != 130 || r.applied[2] != 150 {
		t.Errorf("delivered %v", r.applied)
	}
}

// Another database stands in the origin's place: nothing of it is applied without a resync.
func TestSubscriptionOtherWAL(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(10)
	r := start(t, b, checkpoint.Checkpoint{}, nil)
	r.at(100)
	w.cfg.Epoch.SystemID++
	w.incarnation(2, 100)
	w.write(5)
	brokertest.Until(t, "a gap", func() bool { g := r.sub.State().Gap; return g != nil && strings.Contains(g.Reason, "log changed") })
	w.incarnation(3, 40)
	for _, f := range w.frames(1, 10, wire.Resync) {
		w.store(f.Data)
	}
	brokertest.Until(t, "the resync", func() bool { return r.sub.State().Read.Epoch.SystemID == epoch.SystemID+1 })
	r.stop()
	if n := len(r.refused); n != 1 {
		t.Errorf("%d messages in quarantine", n)
	}
}

// The origin lost the frame that we have, and went on with another of the same number.
func TestSubscriptionFork(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	w.write(9)
	fork := w.enc.Position()
	w.write(1)
	r := start(t, b, checkpoint.Checkpoint{}, func(_ *subscribe.Config, r *reader) {
		r.answer = func(subscribe.RewindRequest) subscribe.RewindReply { return subscribe.RewindReply{Granted: true} }
	})
	r.at(100)
	w.enc, w.lsn = wire.NewEncoder(w.cfg, fork), 90
	for _, f := range w.frames(3, 50, 0) { // frame 10 once more, with more in it
		w.store(f.Data)
	}
	brokertest.Until(t, "a request to rewind", func() bool { return r.sub.State().Rewinds > 0 })
	w.incarnation(2, 80)
	w.write(10)
	r.at(w.lsn)
}

func TestSubscriptionConsumerDeleted(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	r := start(t, b, checkpoint.Checkpoint{}, nil)
	for range 3 {
		w.write(5)
		r.at(w.lsn)
		s := w.stream()
		for name := range s.ConsumerNames(limit(t)).Name() {
			if err := s.DeleteConsumer(limit(t), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.write(5)
	r.at(w.lsn)
}

func TestSubscriptionSignature(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	plain := w.frames(1, 100, 0)[0]
	w.cfg.Sign = func(b []byte) []byte { return ed25519.Sign(private, b) }
	w.incarnation(1, 0)
	r := start(t, b, checkpoint.Checkpoint{}, func(c *subscribe.Config, _ *reader) { c.PublicKey = public })
	w.store(plain.Data)
	w.write(3)
	r.at(30)
	if got := r.reasons(); !strings.Contains(got, "signature") || len(r.refused) != 1 {
		t.Errorf("refused: %s", got)
	}
}

// A receiver that stands still is not flooded.
func TestSubscriptionBackPressure(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	for range 100 {
		for _, f := range w.frames(1, 200_000, 0) {
			w.store(f.Data)
		}
	}
	js, _ := b.JS(origin)
	sub := subscribe.New(subscribe.Config{
		Cluster: cluster, Region: "us", Origin: origin, Conn: b.Conn(), JS: js, QueueBytes: 1 << 20, Heartbeat: 200 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	release, done := make(chan struct{}), make(chan error, 1)
	n := 0
	go func() {
		done <- sub.Run(ctx, checkpoint.Checkpoint{Origin: origin}, func(context.Context, subscribe.Delivery) error {
			<-release
			if n++; n == 100 {
				cancel()
			}
			return nil
		})
	}()
	brokertest.Until(t, "the queue to fill", func() bool { return sub.State().Read.FrameNo >= 3 })
	deadline := time.Now().Add(time.Second) // longer than the heartbeats' patience
	brokertest.Until(t, "a second to pass", func() bool { return time.Now().After(deadline) })
	if got := sub.State().Read.FrameNo; got > 8 {
		t.Errorf("read %d frames ahead with room for five", got)
	}
	close(release)
	if err := <-done; err != nil || n != 100 {
		t.Fatalf("delivered %d: %v", n, err)
	}
}

func TestSubscriptionDeliverFails(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	newWriter(t, b).write(3)
	js, _ := b.JS(origin)
	sub := subscribe.New(subscribe.Config{Cluster: cluster, Region: "us", Origin: origin, Conn: b.Conn(), JS: js})
	broken := errors.New("disk on fire")
	err := sub.Run(limit(t), checkpoint.Checkpoint{Origin: origin}, func(context.Context, subscribe.Delivery) error { return broken })
	if !errors.Is(err, broken) {
		t.Fatalf("run: %v", err)
	}
}
