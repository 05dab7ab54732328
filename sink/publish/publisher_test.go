package publish_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/wire"
)

func TestPublisher(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 1, nil)
	if r.tail.Found || r.tail.LastSeq != 0 {
		t.Fatalf("tail of a new stream: %+v", r.tail)
	}
	r.mustPublish(300, 2000)
	r.settled()
	checkChain(t, b, 300)

	// A publisher that continues the incarnation, and then one that opens another.
	r = publisher(t, b, 0, nil)
	if !r.tail.Found || r.tail.Header.Number != 300 || r.tail.Seq != 300 || r.tail.Damaged {
		t.Fatalf("tail %+v", r.tail)
	}
	r.mustPublish(10, 100)
	r.settled()
	checkChain(t, b, 310)
	r = publisher(t, b, 2, nil)
	r.mustPublish(5, 100)
	r.settled()
	if s := r.pub.State(); s.Durable.Incarnation != 2 || s.Durable.Number != 5 || s.Seq != 315 {
		t.Fatalf("state %+v", s)
	}
}

// Connections die in the middle of publishing, with and without the answers of the server,
// and longer ago than the server remembers message ids.
// A publisher that is started and never runs leaves nothing behind.
func TestPublisherCloses(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	publisher(t, b, 1, nil).mustPublish(1, 100)
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for range 3 {
		p := publish.New(publish.Config{Cluster: cluster, Origin: origin, Conn: b.Conn(), JS: js, MaxBytes: 16 << 20})
		p.Close()
		tail, err := p.Open(limit(t))
		if err != nil {
			t.Fatal(err)
		}
		if before == 0 { // what Open needs stays with the connection
			before = b.Conn().NumSubscriptions()
		}
		if err := p.Start(wire.Position{Incarnation: 2}, tail); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	if n := b.Conn().NumSubscriptions(); n != before {
		t.Errorf("%d subscriptions, %d before", n, before)
	}
}

func TestPublisherReconnects(t *testing.T) {
	t.Parallel()
	b, _, link, _ := brokertest.External(t, origin)
	r := publisher(t, b, 1, func(c *publish.Config) { c.Duplicates, c.WindowFrames = 100*time.Millisecond, 16 })
	done := make(chan error, 1)
	go func() { done <- r.publish(600, 3000) }()
	for i := 0; ; i++ {
		brokertest.Until(t, "progress", func() bool { return r.pub.State().Durable.Number >= uint64(60*i) })
		if i == 9 {
			break
		}
		switch i % 3 {
		case 0:
			link.CloseConns()
		case 1:
			link.Cut()
			brokertest.Until(t, "disconnect", func() bool { return !b.Conn().IsConnected() })
			link.Heal()
		case 2: // stored, but the answers are lost
			link.Drop(proxy.Down)
			deadline := time.Now().Add(300 * time.Millisecond)
			brokertest.Until(t, "the duplicate window to pass", func() bool { return time.Now().After(deadline) })
			link.Heal()
			link.CloseConns()
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.settled()
	checkChain(t, b, 600)
}

func TestPublisherFenced(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	first := publisher(t, b, 1, nil)
	first.mustPublish(20, 100)
	first.settled()
	second := publisher(t, b, 0, nil) // another process took over
	second.mustPublish(5, 100)
	second.settled()
	// More frames than the other has stored: the sixth expects a sequence that is true again.
	if err := first.publish(9, 100); err != nil && !errors.Is(err, publish.ErrFenced) {
		t.Fatal(err)
	}
	first.ends(publish.ErrFenced)
	second.mustPublish(5, 100)
	second.settled()
	checkChain(t, b, 30)

	third := publisher(t, b, 2, nil)
	third.mustPublish(1, 100)
	third.settled()
	if err := second.publish(1, 100); err != nil {
		t.Fatal(err)
	}
	second.ends(publish.ErrFenced)
}

// A full stream holds the publisher up and loses nothing, for bytes and for messages.
func TestPublisherFull(t *testing.T) {
	t.Parallel()
	for _, limitBy := range []string{"bytes", "messages"} {
		t.Run(limitBy, func(t *testing.T) {
			t.Parallel()
			b := brokertest.Start(t, broker.Config{Region: origin})
			r := publisher(t, b, 1, func(c *publish.Config) { c.MaxBytes, c.WindowFrames = 300_000, 8 })
			if limitBy == "messages" {
				js, _ := b.JS(origin)
				cfg := stream(t, b).CachedInfo().Config
				cfg.MaxMsgs = 20
				if _, err := js.UpdateStream(limit(t), cfg); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error, 1)
			go func() { done <- r.publish(100, 10_000) }()
			for range 3 {
				brokertest.Until(t, "the stream to be full", func() bool {
					s := r.pub.State()
					return s.Full && errors.Is(s.Err, publish.ErrStreamFull) && !s.Since.IsZero()
				})
				brokertest.Until(t, "something to purge", func() bool {
					n, err := r.pub.Purge(limit(t), r.pub.State().Seq)
					if err != nil {
						t.Fatal(err)
					}
					return n > 0
				})
			}
			brokertest.Until(t, "all frames", func() bool {
				if _, err := r.pub.Purge(limit(t), r.pub.State().Seq); err != nil {
					t.Fatal(err)
				}
				return r.pub.State().Durable.Number == 100
			})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			r.settled()
		})
	}
}

// What the stream has acknowledged must still be there.
func TestPublisherStreamLost(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(t *testing.T, b *broker.Broker, dir string){
		"stream deleted": func(t *testing.T, b *broker.Broker, _ string) {
			js, _ := b.JS(origin)
			if err := js.DeleteStream(limit(t), wire.StreamName(cluster, origin)); err != nil {
				t.Fatal(err)
			}
		},
		"stream made again": func(t *testing.T, b *broker.Broker, _ string) {
			js, _ := b.JS(origin)
			cfg := stream(t, b).CachedInfo().Config
			if err := js.DeleteStream(limit(t), cfg.Name); err != nil {
				t.Fatal(err)
			}
			// The server may still be removing the folder of the old one.
			brokertest.Until(t, "a new stream", func() bool { _, err := js.CreateStream(limit(t), cfg); return err == nil })
		},
		"store deleted": func(t *testing.T, _ *broker.Broker, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := brokertest.Start(t, broker.Config{Region: origin, StoreDir: dir})
			r := publisher(t, b, 1, nil)
			r.mustPublish(20, 100)
			r.settled()
			deadline := time.Now().Add(600 * time.Millisecond) // the broker looks at its store
			brokertest.Until(t, "a look at the store", func() bool { return time.Now().After(deadline) })
			hurt(t, b, dir)
			go func() { // frames are acknowledged into deleted files for a while
				for r.publish(1, 100) == nil && t.Context().Err() == nil {
				}
			}()
			select {
			case <-r.done:
			case <-limit(t).Done():
				t.Fatalf("nothing noticed: %+v", r.pub.State())
			}
			if !errors.Is(r.err, publish.ErrStreamLost) {
				t.Fatalf("ended with %v", r.err)
			}
			// The broker may notice later than the publisher, and a server that it starts again loses what is stored until then.
			brokertest.Until(t, "a store", func() bool {
				_, err := os.Stat(filepath.Join(dir, "nats", "jetstream"))
				return err == nil && b.Conn().IsConnected()
			})
			// The remedy: a new incarnation.
			r = publisher(t, b, 2, nil)
			r.mustPublish(3, 100)
			r.settled()
		})
	}
}

// A purge by somebody else leaves a stream that can go on: what it did to peers is theirs to find out.
func TestPublisherPurged(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 1, nil)
	r.mustPublish(20, 100)
	r.settled()
	if err := stream(t, b).Purge(limit(t)); err != nil {
		t.Fatal(err)
	}
	r.mustPublish(20, 100)
	r.settled()
	if s := stream(t, b).CachedInfo().State; s.LastSeq != 40 || s.Msgs != 20 {
		t.Fatalf("state %+v", s)
	}
}

// Others publish on our subject: garbage, copies, frames of another origin.
func TestPublisherForeignMessages(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 1, nil)
	r.mustPublish(10, 100)
	r.settled()
	js, _ := b.JS(origin)
	old, err := stream(t, b).GetMsg(limit(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	other := wire.NewEncoder(wire.EncoderConfig{Cluster: cluster, Origin: "us", Epoch: epoch}, wire.Position{Incarnation: 9})
	inject := func() {
		for _, data := range [][]byte{[]byte("garbage"), {}, old.Data, frame(other, 50).Data, {'P', 'G', 'W', 'Z', 99}} {
			if _, err := js.Publish(limit(t), wire.Subject(cluster, origin), data); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 {
		inject()
		r.mustPublish(10, 100)
		r.settled()
	}
	inject()
	r.mu.Lock()
	if r.foreign < 20 {
		t.Errorf("%d foreign messages reported", r.foreign)
	}
	r.mu.Unlock()

	r = publisher(t, b, 0, nil) // steps back over them
	if r.tail.Header.Number != 60 || r.tail.Foreign != 5 || r.tail.Damaged {
		t.Fatalf("tail %+v", r.tail)
	}
	r.mustPublish(10, 100)
	r.settled()

	next := frame(r.enc, 100) // damaged on its way to the disk
	next.Data[len(next.Data)-1] ^= 4
	if _, err := js.Publish(limit(t), wire.Subject(cluster, origin), next.Data); err != nil {
		t.Fatal(err)
	}
	if tail := publisher(t, b, 2, nil).tail; !tail.Damaged || tail.Header.Number != 70 {
		t.Fatalf("tail %+v", tail)
	}
}

func TestPublisherStreamSettings(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin, MaxBytes: 512 << 20})
	js, _ := b.JS(origin)
	good := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxBytes: 16 << 20, DenyDelete: true, Duplicates: 2 * time.Minute,
	}
	for name, c := range map[string]struct {
		change func(*jetstream.StreamConfig)
		refuse string
	}{
		"discard old":     {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, ""},
		"max age":         {func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, ""},
		"per subject":     {func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgsPerSubject = jetstream.DiscardOld, 5 }, ""},
		"message size":    {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 }, ""},
		"no ack":          {func(c *jetstream.StreamConfig) { c.NoAck = true }, ""},
		"rollup":          {func(c *jetstream.StreamConfig) { c.DenyDelete, c.AllowRollup = false, true }, ""},
		"small":           {func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }, ""},
		"larger":          {func(c *jetstream.StreamConfig) { c.MaxBytes = 32 << 20 }, ""},
		"message limit":   {func(c *jetstream.StreamConfig) { c.MaxMsgs = 50 }, ""},
		"memory":          {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "memory storage"},
		"interest":        {func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, "retention"},
		"work queue":      {func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, "retention"},
		"foreign subject": {func(c *jetstream.StreamConfig) { c.Subjects = []string{"pgwaltz.x.>"} }, "subjects"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := strings.ReplaceAll(name, " ", "-")
			cfg := good
			cfg.Name, cfg.Subjects = wire.StreamName(cluster, o), []string{wire.Subject(cluster, o)}
			c.change(&cfg)
			if _, err := js.CreateStream(limit(t), cfg); err != nil {
				t.Fatal(err)
			}
			pub := publish.New(publish.Config{Cluster: cluster, Origin: o, Conn: b.Conn(), JS: js, MaxBytes: 16 << 20})
			_, err := pub.Open(limit(t))
			if c.refuse != "" {
				var se *publish.StreamError
				if !errors.As(err, &se) || !strings.Contains(se.Setting, c.refuse) || se.Hint() == "" {
					t.Fatalf("got %v, want a refusal of %s", err, c.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := js.Stream(limit(t), cfg.Name)
			if err != nil {
				t.Fatal(err)
			}
			have := s.CachedInfo().Config
			if have.Discard != jetstream.DiscardNew || have.MaxAge != 0 || have.NoAck || have.AllowRollup || !have.DenyDelete ||
				have.MaxMsgsPerSubject > 0 || have.MaxMsgSize > 0 || have.MaxBytes < 16<<20 || have.MaxMsgs != max(cfg.MaxMsgs, -1)+b2i(cfg.MaxMsgs == 0)*-1 {
				t.Errorf("settings afterwards: %+v", have)
			}
		})
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func TestPublisherPurgeKeeps(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 1, func(c *publish.Config) { c.KeepBytes = 100_000 })
	r.mustPublish(100, 10_000)
	r.settled()
	if n, err := r.pub.Purge(limit(t), 50); err != nil || n < 35 || n > 45 {
		t.Errorf("purged %d of 50 with a margin of ten: %v", n, err)
	}
	if n, err := r.pub.Purge(limit(t), 1000); err != nil || n < 45 || n > 55 {
		t.Errorf("purged %d more: %v", n, err)
	}
	if s := stream(t, b).CachedInfo().State; s.LastSeq != 100 || s.Msgs == 0 {
		t.Errorf("state %+v", s)
	}
}

// A frame is found where it lies, by all that names it; not where another one, something else or nothing lies.
func TestPublisherHolds(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 3, nil)
	r.mustPublish(2, 100)
	if err := b.Conn().Publish(wire.Subject(cluster, origin), []byte("no frame")); err != nil {
		t.Fatal(err)
	}
	r.settled()
	m, err := stream(t, b).GetMsg(limit(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHeader(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		seq         uint64
		incarnation uint32
		number      uint64
		chain       [32]byte
		want        bool
	}{
		"it is there":         {2, 3, 2, h.Chain, true},
		"another one":         {1, 3, 2, h.Chain, false},
		"another incarnation": {2, 4, 2, h.Chain, false},
		"another number":      {2, 3, 1, h.Chain, false},
		"another content":     {2, 3, 2, h.PrevChain, false},
		"no frame":            {3, 3, 2, h.Chain, false},
		"behind the end":      {9, 3, 2, h.Chain, false},
		"nowhere":             {0, 3, 2, h.Chain, false},
	} {
		if got, err := r.pub.Holds(limit(t), c.seq, c.incarnation, c.number, c.chain); err != nil || got != c.want {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
}

// The server is restarted under the publisher, as after a disk that was full.
func TestPublisherServerRestart(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin})
	r := publisher(t, b, 1, nil)
	done := make(chan error, 1)
	go func() { done <- r.publish(400, 1000) }()
	brokertest.Until(t, "progress", func() bool { return r.pub.State().Durable.Number > 50 })
	if err := b.Restart(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.settled()
	checkChain(t, b, 400)
}

// A frame that the server does not take ends the publisher with a reason; it does not go round.
func TestPublisherTooLarge(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, broker.Config{Region: origin, URL: brokertest.Foreign(t, &server.Options{JetStream: true, MaxPayload: 1 << 20}).ClientURL()})
	r := publisher(t, b, 1, nil)
	r.enc = wire.NewEncoder(wire.EncoderConfig{Cluster: cluster, Origin: origin, Epoch: epoch, MaxFrame: 4 << 20}, r.enc.Position())
	if err := r.publish(1, 2<<20); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
	case <-limit(t).Done():
		t.Fatal("it goes on")
	}
	if !errors.Is(r.err, nats.ErrMaxPayload) || !strings.Contains(fmt.Sprint(r.err), "publish.max_frame") {
		t.Fatalf("ended with %v", r.err)
	}
}
