package subscribe_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wire"
)

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
	// How far the former WAL went says nothing of this one, and the direction would be behind it for ever.
	if end := r.sub.State().OriginLSN; end >= 100 {
		t.Errorf("the origin is said to be at %s, which is of its former WAL", end)
	}
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
