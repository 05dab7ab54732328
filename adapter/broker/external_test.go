package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/wire"
)

// accounts is the configuration of a server with one account for the regions, whose users have the
// documented rights, and one of somebody else, who may do everything there.
func accounts(t *testing.T) *server.Options {
	t.Helper()
	list := func(subjects []string) string { return `["` + strings.Join(subjects, `", "`) + `"]` }
	user := func(region, peer string) string {
		r := broker.ClientRights(cluster, region, []string{peer})
		return fmt.Sprintf("{ user: %q, password: %q, permissions: { publish: { allow: %s }, subscribe: { allow: %s } } }",
			region, region+"-secret", list(r.Publish), list(r.Subscribe))
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf(`server_name: external
listen: "127.0.0.1:-1"
jetstream { store_dir: %q }
accounts {
  REGIONS { jetstream: enabled, users: [ %s, %s ] }
  OTHERS { jetstream: enabled, users: [ { user: other, password: other-secret } ] }
}
`, t.TempDir(), user("eu", "us"), user("us", "eu"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	return o
}

// An external server whose users have the documented rights, in an account of their own: regions work
// with them, and get no further; who has another account gets nowhere.
func TestExternalServerWithLeastRights(t *testing.T) {
	t.Parallel()
	srv := brokertest.Foreign(t, accounts(t))
	region := func(name, peer string) *broker.Broker {
		return brokertest.Start(t, broker.Config{Region: name, Peers: []string{peer}, URL: srv.ClientURL(), User: name, Password: name + "-secret"})
	}
	eu, us := region("eu", "us"), region("us", "eu")
	fill(t, eu, "eu", 5)
	fill(t, us, "us", 5)
	brokertest.Until(t, "the regions to reach each other", func() bool { return eu.PeerReachable("us") && us.PeerReachable("eu") })
	pull(t, us, "eu", 5)
	pull(t, eu, "us", 5)
	got := make(chan broker.Ack, 64)
	if _, err := eu.SubscribeAcks(func(a broker.Ack) { got <- a }); err != nil {
		t.Fatal(err)
	}
	brokertest.Until(t, "an acknowledgement", func() bool {
		if err := us.PublishAck("eu", broker.Ack{Frame: 3}); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-got:
			return a.Peer == "us"
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})

	// The same user, without our program.
	nc, err := nats.Connect(srv.ClientURL(), nats.UserInfo("us", "us-secret"), nats.CustomInboxPrefix("_INBOX_us.us"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	stream := wire.StreamName(cluster, "eu")
	allowed := broker.ClientRights(cluster, "us", []string{"eu"}).Publish
	for subject, data := range calls("$JS.API.", stream, "eu") {
		if slices.Contains(allowed, subject) || strings.Contains(subject, ".flood-") && !strings.HasSuffix(subject, "0") {
			continue
		}
		call, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if m, err := nc.RequestWithContext(call, subject, []byte(data)); err == nil {
			t.Errorf("%s was answered: %s", subject, m.Data)
		}
		cancel()
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{wire.Subject(cluster, "eu"), wire.AckSubject(cluster, "eu", "eu"), wire.ControlSubject(cluster, "eu", "echo", "ap"), "planted"} {
		call, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := js.Publish(call, subject, []byte("forged"), jetstream.WithRetryAttempts(0)); err == nil {
			t.Errorf("a message on %s was stored", subject)
		}
		cancel()
	}
	for _, subject := range []string{">", "_INBOX_eu.>", "_INBOX.>", wire.Subject(cluster, "eu"), "pgwaltz.>", "$SYS.>", wire.AckSubject(cluster, "eu", "us")} {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, eu, "eu", 0)
		if m, err := sub.NextMsg(100 * time.Millisecond); err == nil {
			t.Errorf("heard %s", m.Subject)
		}
	}
	for what, conn := range map[string]*nats.Conn{"the stream that eu reads": eu.ConnOf("eu"), "what eu publishes": eu.Conn()} {
		silentAt(t, nc, conn, what)
	}
	anotherAccount(t, srv.ClientURL(), eu, us)
	unharmed(t, eu, 5, "us", "eu")
	unharmed(t, us, 5, "us", "eu")
	if _, err := nats.Connect(srv.ClientURL(), nats.UserInfo("us", "")); err == nil {
		t.Error("an empty password is accepted")
	}
}

// anotherAccount tries everything from an account that is not that of the regions.
func anotherAccount(t *testing.T, url string, eu, us *broker.Broker) {
	t.Helper()
	nc, err := nats.Connect(url, nats.UserInfo("other", "other-secret"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	heard, err := nc.SubscribeSync("pgwaltz.>")
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream := wire.StreamName(cluster, "eu")
	if _, err := js.Stream(ctx(t), stream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("another account finds the stream: %v", err)
	}
	// A stream of the same name and subject is another one, and takes what is forged.
	if _, err := js.CreateStream(ctx(t), jetstream.StreamConfig{Name: stream, Subjects: []string{wire.Subject(cluster, "eu")}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx(t), wire.Subject(cluster, "eu"), []byte("forged")); err != nil {
		t.Fatal(err)
	}
	acks := make(chan broker.Ack, 64)
	stop, err := eu.SubscribeAcks(func(a broker.Ack) { acks <- a })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := nc.Publish(wire.AckSubject(cluster, "eu", "us"), []byte(`{"peer":"us","frame":99,"session":1,"number":1}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Request(wire.ControlSubject(cluster, "eu", "echo", "us"), nil, 200*time.Millisecond); err == nil {
		t.Error("a request of another account was answered")
	}
	brokertest.Until(t, "an acknowledgement of us", func() bool {
		if err := us.PublishAck("eu", broker.Ack{Frame: 3}); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-acks:
			if a.Frame == 99 {
				t.Error("an acknowledgement of another account was taken")
			}
			return true
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	for {
		m, err := heard.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if string(m.Data) != "forged" && !strings.Contains(string(m.Data), `"frame":99`) && len(m.Data) > 0 {
			t.Errorf("another account hears %s", m.Subject)
		}
	}
}

// A login that is refused is said so.
func TestRefusedLogin(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, Username: "eu", Password: "right"})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	b, err := broker.New(broker.Config{Cluster: cluster, Region: "eu", URL: srv.ClientURL(), User: "eu", Password: "wrong", MaxBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	brokertest.Until(t, "the reason", func() bool {
		s := b.State()
		return !s.Connected && s.Err != nil && strings.Contains(s.Err.Error(), "Authorization Violation")
	})
	if _, err := b.Request(t.Context(), "us", "echo", nil); err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("a request says %v", err)
	}
}
