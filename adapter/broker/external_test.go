package broker_test

import (
	"context"
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

// An external server whose users have the documented rights: regions work with them, and get no
// further.
func TestExternalServerWithLeastRights(t *testing.T) {
	t.Parallel()
	user := func(region, peer string) *server.User {
		r := broker.ClientRights(cluster, region, []string{peer})
		return &server.User{Username: region, Password: region + "-secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: r.Publish}, Subscribe: &server.SubjectPermission{Allow: r.Subscribe},
		}}
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{user("eu", "us"), user("us", "eu")},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
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
	unharmed(t, eu, 5, "us", "eu")
	if _, err := nats.Connect(srv.ClientURL(), nats.UserInfo("us", "")); err == nil {
		t.Error("an empty password is accepted")
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
