package publish_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/sink/publish"
)

// external starts a server that no broker of ours has, and returns its address. It ends with the test.
func external(t *testing.T, o *server.Options) string {
	t.Helper()
	o.ServerName, o.Host, o.Port, o.NoSigs, o.NoLog, o.JetStream, o.StoreDir = "external", "127.0.0.1", -1, true, true, true, t.TempDir()
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return srv.ClientURL()
}

// With the documented rights on an external server the publisher hears its acknowledgements: frames
// are durable when the server says so, not when the stream is read for want of an answer.
func TestPublisherHearsAcknowledgementsWithTheDocumentedRights(t *testing.T) {
	t.Parallel()
	r := broker.ClientRights(cluster, origin, []string{"us"})
	url := external(t, &server.Options{Users: []*server.User{{Username: origin, Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: r.Publish}, Subscribe: &server.SubjectPermission{Allow: r.Subscribe},
	}}}})
	b := brokertest.Start(t, broker.Config{Region: origin, Peers: []string{"us"}, URL: url, User: origin, Password: "secret"})
	// Without an answer nothing would be known before this has passed.
	pub := publisher(t, b, 1, func(c *publish.Config) { c.AckTimeout = time.Hour })
	pub.mustPublish(3, 1000)
	brokertest.Until(t, "three durable frames", func() bool {
		pub.mu.Lock()
		defer pub.mu.Unlock()
		return len(pub.durable) == 3
	})
}
