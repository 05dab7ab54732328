package publish_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/wire"
)

// slowServer answers to two questions for a message, and not to the third.
type slowServer struct {
	jetstream.JetStream
	asked *atomic.Int64
}

func (s slowServer) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	got, err := s.JetStream.Stream(ctx, name)
	return slowStream{got, s.asked}, err
}

type slowStream struct {
	jetstream.Stream
	asked *atomic.Int64
}

func (s slowStream) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	if s.asked.Add(1)%3 == 0 {
		return nil, context.DeadlineExceeded
	}
	return s.Stream.GetMsg(ctx, seq, opts...)
}

// A server that is too slow to be read from end to end is read piece by piece: what was found is
// not looked for again.
func TestPublisherReadsASlowServer(t *testing.T) {
	t.Parallel()
	b, host, link, _ := brokertest.External(t, origin)
	asked := &atomic.Int64{}
	r := publisher(t, b, 1, func(c *publish.Config) {
		c.WindowFrames = 64
		c.JS = slowServer{c.JS, asked}
	})
	js, err := host.JS("host")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := js.Stream(limit(t), wire.StreamName(cluster, origin))
	if err != nil {
		t.Fatal(err)
	}
	link.Drop(proxy.Down) // what is published now is stored, and its answers are lost
	r.mustPublish(30, 500)
	brokertest.Until(t, "the frames to be stored", func() bool {
		info, err := stored.Info(limit(t))
		return err == nil && info.State.LastSeq >= 30
	})
	link.Heal()
	link.CloseConns()
	r.settled()
	checkChain(t, b, 30)
	if asked.Load() == 0 {
		t.Error("nothing was read back")
	}
}
