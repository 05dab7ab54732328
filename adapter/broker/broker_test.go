package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/wire"
)

const cluster = brokertest.Cluster

func ctx(t testing.TB) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return c
}

// fill creates region's stream with n messages of its number as text.
func fill(t testing.TB, b *broker.Broker, region string, n int) {
	t.Helper()
	js, err := b.JS(region)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx(t), jetstream.StreamConfig{
		Name: wire.StreamName(cluster, region), Subjects: []string{wire.Subject(cluster, region)},
		Storage: jetstream.FileStorage, MaxBytes: 8 << 20, Discard: jetstream.DiscardNew,
	}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := js.Publish(ctx(t), wire.Subject(cluster, region), fmt.Appendf(nil, "%s%d", region, i)); err != nil {
			t.Fatal(err)
		}
	}
}

var pulls atomic.Int32

// pull reads n messages of origin's stream at b.
func pull(t testing.TB, b *broker.Broker, origin string, n int) {
	t.Helper()
	js, err := b.JS(origin)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.CreateOrUpdateConsumer(ctx(t), wire.StreamName(cluster, origin), jetstream.ConsumerConfig{
		Name: wire.ConsumerName(b.Region(), int(pulls.Add(1))%wire.Consumers), AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 1, MemoryStorage: true,
	})
	if err != nil {
		t.Fatalf("consumer on %s: %v", origin, err)
	}
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for m := range batch.Messages() {
		if want := fmt.Sprintf("%s%d", origin, i); string(m.Data()) != want || m.Subject() != wire.Subject(cluster, origin) {
			t.Fatalf("message %d of %s: %q on %s", i, origin, m.Data(), m.Subject())
		}
		i++
	}
	if i != n {
		t.Fatalf("%d of %d messages of %s: %v", i, n, origin, batch.Error())
	}
}

func request(t testing.TB, from *broker.Broker, to string) {
	t.Helper()
	brokertest.Until(t, "an answer of "+to, func() bool { // the subscription may still be on its way
		got, err := from.Request(ctx(t), to, "echo", []byte("x"))
		if err == nil && string(got) != to+":x" {
			t.Fatalf("request of %s: %q", to, got)
		}
		return err == nil
	})
}

func serveEcho(t testing.TB, b *broker.Broker, region string) {
	t.Helper()
	if _, err := b.Serve("echo", func(_ context.Context, _ string, data []byte) ([]byte, error) {
		if string(data) == "bad" {
			return nil, errors.New("no such thing")
		}
		return []byte(region + ":" + string(data)), nil
	}); err != nil {
		t.Fatal(err)
	}
}

// One link carries streams and requests both ways, whichever side dialled it, and again
// after a cut.
func TestPair(t *testing.T) {
	t.Parallel()
	p := brokertest.StartPair(t)
	fill(t, p.EU, "eu", 20)
	fill(t, p.US, "us", 20)
	serveEcho(t, p.EU, "eu")
	serveEcho(t, p.US, "us")
	check := func() {
		t.Helper()
		pull(t, p.EU, "us", 20)
		pull(t, p.US, "eu", 20)
		request(t, p.EU, "us")
		request(t, p.US, "eu")
	}
	check()

	_, err := p.EU.Request(ctx(t), "us", "echo", []byte("bad"))
	var remote *broker.RemoteError
	if !errors.As(err, &remote) || remote.Message != "no such thing" {
		t.Errorf("refused request: %v", err)
	}
	if _, err := p.EU.Request(ctx(t), "us", "nothing", nil); !errors.Is(err, broker.ErrUnreachable) {
		t.Errorf("request of an unknown verb: %v", err)
	}

	p.Link.Cut()
	brokertest.Until(t, "the cut to be noticed", func() bool {
		return !p.EU.PeerReachable("us") && !p.US.PeerReachable("eu")
	})
	p.Link.Heal()
	p.WaitLinked(t)
	check()
	if o := p.EU.Peer("us").Offset; o.Abs() > time.Second {
		t.Errorf("clock offset %s on one machine", o)
	}
}

// Regions may be configured to frames of other sizes. The largest that may be crosses a link from either end of it, and the link stays.
func TestLargestFrames(t *testing.T) {
	t.Parallel()
	p := brokertest.StartPair(t)
	for from, to := range map[*broker.Broker]*broker.Broker{p.EU: p.US, p.US: p.EU} {
		fill(t, from, from.Region(), 0)
		js, err := from.JS(from.Region())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx(t), wire.Subject(cluster, from.Region()), make([]byte, wire.MaxPayload-1000)); err != nil {
			t.Fatal(err)
		}
		js, err = to.JS(from.Region())
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.Stream(ctx(t), wire.StreamName(cluster, from.Region()))
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.GetMsg(ctx(t), 1) // in base64
		if err != nil || len(m.Data) != wire.MaxPayload-1000 {
			t.Errorf("from %s: %v", from.Region(), err)
		}
	}
}

// A peer can read our stream and nothing else of it.
func TestPeerCannotWrite(t *testing.T) {
	t.Parallel()
	p := brokertest.StartPair(t)
	fill(t, p.EU, "eu", 3)
	fill(t, p.US, "us", 3)
	for _, c := range []struct {
		from   *broker.Broker
		region string
	}{{p.EU, "us"}, {p.US, "eu"}} {
		js, err := c.from.JS(c.region)
		if err != nil {
			t.Fatal(err)
		}
		name := wire.StreamName(cluster, c.region)
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := js.DeleteStream(short, name); err == nil {
			t.Errorf("a peer deleted %s", name)
		}
		cancel()
		short, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		if _, err := js.Publish(short, wire.Subject(cluster, c.region), []byte("forged"), jetstream.WithRetryAttempts(0)); err == nil {
			t.Errorf("a peer published into %s", name)
		}
		cancel()
		s, err := js.Stream(ctx(t), name)
		if err != nil || s.CachedInfo().State.LastSeq != 3 {
			t.Errorf("stream %s: %v, %v", name, s, err)
		}
	}
}

// Two regions that both dial reach each other through the one that listens.
func TestHub(t *testing.T) {
	t.Parallel()
	all := []string{"eu", "us", "ap"}
	others := func(r string) []string {
		var o []string
		for _, x := range all {
			if x != r {
				o = append(o, x)
			}
		}
		return o
	}
	us := brokertest.Start(t, broker.Config{Region: "us", Peers: others("us"), Listen: "127.0.0.1:0"})
	dial := []string{"nats-leaf://" + us.LinkAddr()}
	bs := map[string]*broker.Broker{
		"us": us,
		"eu": brokertest.Start(t, broker.Config{Region: "eu", Peers: others("eu"), Dial: dial}),
		"ap": brokertest.Start(t, broker.Config{Region: "ap", Peers: others("ap"), Dial: dial}),
	}
	for r, b := range bs {
		fill(t, b, r, 10)
		serveEcho(t, b, r)
	}
	for r, b := range bs {
		for _, o := range others(r) {
			brokertest.Until(t, r+" to reach "+o, func() bool { return b.PeerReachable(o) })
			pull(t, b, o, 10)
			request(t, b, o)
		}
	}
}

func TestAcks(t *testing.T) {
	t.Parallel()
	p := brokertest.StartPair(t)
	got := make(chan broker.Ack, 16) // more than the test sends
	if _, err := p.EU.SubscribeAcks(func(a broker.Ack) { got <- a }); err != nil {
		t.Fatal(err)
	}
	want := broker.Ack{Peer: "us", Incarnation: 2, Frame: 1 << 60, EndLSN: 1 << 63, At: 5, Parked: 3}
	want.Epoch.SystemID = 1<<64 - 1
	// Forged, broken, and from nobody we know; then the good one.
	_ = p.US.Conn().Publish(wire.AckSubject(cluster, "eu", "us"), []byte("{"))
	_ = p.US.Conn().Publish(wire.AckSubject(cluster, "eu", "us"), []byte(`{"peer":"ap"}`))
	_ = p.US.Conn().Publish(wire.AckSubject(cluster, "eu", "ap"), []byte(`{"peer":"ap"}`))
	brokertest.Until(t, "an acknowledgement", func() bool {
		if err := p.US.PublishAck("eu", want); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-got:
			if a.Session == 0 || a.Number == 0 {
				t.Fatalf("got %+v", a)
			}
			a.Session, a.Number = 0, 0
			if a != want {
				t.Fatalf("got %+v", a)
			}
			return true
		default:
			return false
		}
	})
}

func TestAuth(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var mu sync.Mutex
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))

	good := file("good", password+"\n")
	eu := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", User: "link", PasswordFile: good, Log: log})
	dial := []string{"nats-leaf://" + eu.LinkAddr()}
	brokertest.Start(t, broker.Config{Region: "ap", Peers: []string{"eu"}, Dial: dial, User: "link", PasswordFile: file("bad", "wrong"), Log: log})
	brokertest.Start(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: dial, User: "link", PasswordFile: good, Log: log})
	brokertest.Until(t, "link", func() bool { return eu.PeerReachable("us") })
	if eu.PeerReachable("ap") {
		t.Error("linked with a wrong password")
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(text.String(), password) {
		t.Error("the password is in the log")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A store deleted under the running server is noticed, and the server works again.
func TestStoreDeleted(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"", "nats/jetstream/$G/streams/" + wire.StreamName(cluster, "eu"), "nats/jetstream/$G/streams/" + wire.StreamName(cluster, "eu") + "/msgs"} {
		t.Run("store/"+filepath.Base(what), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := brokertest.Start(t, broker.Config{Region: "eu", StoreDir: dir})
			fill(t, b, "eu", 5)
			watchFor(t)
			if err := os.RemoveAll(filepath.Join(dir, what)); err != nil {
				t.Fatal(err)
			}
			js, err := b.JS("eu")
			if err != nil {
				t.Fatal(err)
			}
			brokertest.Until(t, "the stream to be gone or empty", func() bool {
				// A request under way when the server goes is never answered.
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				s, err := js.Stream(short, wire.StreamName(cluster, "eu"))
				return errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && s.CachedInfo().State.Msgs == 0
			})
			if what == "" {
				fill(t, b, "eu", 5)
			}
		})
	}
}

// watchFor lets the store be looked at once; a stream that is made and deleted between two
// looks is noticed by the publisher only.
func watchFor(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(600 * time.Millisecond)
	brokertest.Until(t, "a look at the store", func() bool { return time.Now().After(deadline) })
}

func TestRestartAndReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := broker.Config{Cluster: cluster, Region: "eu", StoreDir: dir, MaxBytes: 64 << 20}
	b := brokertest.Start(t, cfg)
	fill(t, b, "eu", 5)

	other, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); !errors.Is(err, broker.ErrStoreInUse) {
		t.Fatalf("second broker over one store: %v", err)
	}
	if err := b.Restart(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	brokertest.Until(t, "reconnect", func() bool { return b.Conn().IsConnected() && b.Conn().Stats().Reconnects > 0 })
	pull(t, b, "eu", 5)
	b.Close()

	cfg.MaxBytes = 1 << 20 // less than the stream was given
	b = brokertest.Start(t, cfg)
	pull(t, b, "eu", 5)
}

func TestExternal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	host := brokertest.Start(t, broker.Config{Region: "hub", StoreDir: dir, ClientListen: "127.0.0.1:0"})
	cfg := broker.Config{
		Region: "eu", Peers: []string{"us"}, URL: "nats://" + host.ClientAddr(),
		User: "operator", PasswordFile: filepath.Join(dir, "operator.password"),
	}
	eu := brokertest.Start(t, cfg)
	cfg.Region, cfg.Peers = "us", []string{"eu"}
	us := brokertest.Start(t, cfg)
	fill(t, eu, "eu", 7)
	pull(t, us, "eu", 7)
	serveEcho(t, eu, "eu")
	request(t, us, "eu")

	cfg.PasswordFile = ""
	states := make(chan broker.State, 64) // more changes than the test sees
	cfg.Cluster, cfg.Region, cfg.OnState = cluster, "ap", func(s broker.State) {
		select {
		case states <- s:
		default:
		}
	}
	ap, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ap.Close)
	if err := ap.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s := range states {
		if errors.Is(s.Err, nats.ErrAuthorization) {
			return // named, and retried until somebody repairs the password
		}
	}
}

// A key made for this test.
const (
	nkeySeed   = "SUAL3PXC3W5Y4SXNDCVSPMCQZG4LQADMZ2DYB7ST4MZDSWZPZL2DVRTO24"
	nkeyPublic = "UBOAJ2EC5ZIBXXDWM5LEEBK46PDLYB6VM7OLANKTDKTANZ5U6TQ6YGIR"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	base := broker.Config{Cluster: cluster, Region: "eu", StoreDir: "x", MaxBytes: 1}
	for name, c := range map[string]struct {
		change func(*broker.Config)
		key    string
	}{
		"no store":      {func(c *broker.Config) { c.StoreDir = "" }, "nats.store_dir"},
		"open listener": {func(c *broker.Config) { c.Listen = "0.0.0.0:7422" }, "nats.listen"},
		"bad listener":  {func(c *broker.Config) { c.Listen = "7422" }, "nats.listen"},
		"own peer":      {func(c *broker.Config) { c.Peers = []string{"eu"} }, "peers"},
		"bad dial":      {func(c *broker.Config) { c.Dial = []string{"http://x"} }, "nats.dial"},
		"two brokers":   {func(c *broker.Config) { c.URL, c.Listen = "nats://x", "127.0.0.1:0" }, "nats"},
		"half a pair":   {func(c *broker.Config) { c.TLS.CertFile = "x" }, "nats.tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := base
			c.change(&cfg)
			_, err := broker.New(cfg)
			var ce *broker.ConfigError
			if !errors.As(err, &ce) || ce.Key != c.key || ce.Hint() == "" {
				t.Errorf("got %v, want a problem with %s", err, c.key)
			}
		})
	}
}
