package publish_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/sink/publish"
)

// With the documented rights on an external server the publisher hears its acknowledgements: frames
// are durable when the server says so, not when the stream is read for want of an answer.
func TestPublisherHearsAcknowledgementsWithTheDocumentedRights(t *testing.T) {
	t.Parallel()
	r := broker.ClientRights(cluster, origin, []string{"us"})
	srv := brokertest.Foreign(t, &server.Options{JetStream: true, Users: []*server.User{{Username: origin, Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: r.Publish}, Subscribe: &server.SubjectPermission{Allow: r.Subscribe},
	}}}})
	b := brokertest.Start(t, broker.Config{Region: origin, Peers: []string{"us"}, URL: srv.ClientURL(), User: origin, Password: "secret"})
	// Without an answer nothing would be known before this has passed.
	pub := publisher(t, b, 1, func(c *publish.Config) { c.AckTimeout = time.Hour })
	pub.mustPublish(3, 1000)
	brokertest.Until(t, "three durable frames", func() bool {
		pub.mu.Lock()
		defer pub.mu.Unlock()
		return len(pub.durable) == 3
	})
}
