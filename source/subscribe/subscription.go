package subscribe

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Control carries requests to other regions.
type Control interface {
	Request(ctx context.Context, region, verb string, data []byte) ([]byte, error)
}

// Config is fixed for the life of a Subscription. Zero numbers mean the defaults.
type Config struct {
	Cluster, Region, Origin string
	Conn                    *nats.Conn
	JS                      jetstream.JetStream // of the origin's domain
	// Control carries rewind requests; without it, a gap heals only by itself.
	Control Control
	// PublicKey of the origin: frames that it did not sign are refused.
	PublicKey ed25519.PublicKey
	// WindowBytes is what the server may have under way to us on a fast link; 8 MiB. On a slow one
	// it is less, see pacing.
	WindowBytes int
	// QueueBytes is what is read, checked and not yet delivered; 16 MiB. A larger packet
	// goes through alone.
	QueueBytes int64
	// MaxPacket bounds one packet in memory; wire.DefaultMaxPacket.
	MaxPacket int
	// Heartbeat is how often a silent stream shows that it is there; 1 s. Two and a half
	// without any make us ask anew.
	Heartbeat time.Duration
	// RewindDelay is how long a gap may last before the origin is asked to rewind (500 ms),
	// RewindEvery the pause between two requests (5 s), GapRetry the pause after the origin
	// has refused (30 s).
	RewindDelay, RewindEvery, GapRetry time.Duration

	// Quarantine keeps a message that was refused. It may see a message again after a
	// restart, and must not keep the slice. Its error makes the message be read again.
	Quarantine func(ctx context.Context, m Refused) error
	// Heard is told of every message that the stream's server has sent; may be nil.
	Heard func()
	// LastByte says when the last byte came from the server, which may be of a message that is not
	// here whole yet; false or nil: it is not known.
	LastByte func() (time.Time, bool)
	Log      *slog.Logger
	Metrics  *Metrics
}

func (c *Config) defaults() {
	duration := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	duration(&c.Heartbeat, time.Second)
	duration(&c.RewindDelay, 500*time.Millisecond)
	duration(&c.RewindEvery, 5*time.Second)
	duration(&c.GapRetry, 30*time.Second)
	if c.WindowBytes <= 0 {
		c.WindowBytes = 8 << 20
	}
	if c.QueueBytes <= 0 {
		c.QueueBytes = 16 << 20
	}
	if c.Quarantine == nil {
		c.Quarantine = func(context.Context, Refused) error { return nil }
	}
	if c.Heard == nil {
		c.Heard = func() {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil, c.Origin)
	}
}

// Refused is a message on the origin's stream that was not applied.
type Refused struct {
	Origin    string
	StreamSeq uint64
	Reason    string // what is wrong with it; no contents
	Data      []byte
}

// Delivery is one packet, ready to apply.
type Delivery struct {
	Header    wire.Header // of the packet's last frame
	StreamSeq uint64
	// Packet holds the transactions that are not applied yet. It is empty for a heartbeat,
	// and where a rewound origin repeats itself.
	Packet *wire.Packet
	Bytes  int // what it takes in memory, about: rows take several times their payload
	// Checkpoint is the position after the packet, to be saved in the transaction that
	// applies it; Transactions and CommitTime are brought forward, AppliedAt is not.
	Checkpoint checkpoint.Checkpoint
	// NewIncarnation is set on the first packet of an incarnation: a transaction whose parts
	// came in before, but not its last, starts again. Resync: the origin admits that what
	// lies before is missing.
	NewIncarnation, Resync bool
}

// Subscription reads one origin's stream and delivers what continues the checkpoint, in
// order, each transaction once as far as the checkpoint knows. It trusts nothing but the
// frames themselves: not stream sequences, not consumer state, not the stream's existence.
//
// Run is called once; State may be called from anywhere.
type Subscription struct {
	cfg     Config
	metrics *Metrics

	queue  chan Delivery
	room   *semaphore.Weighted
	queued atomic.Int64

	mu    sync.Mutex
	state State
}

// maxQueued bounds the deliveries in the queue beside their bytes.
const maxQueued = 1024

// New returns a subscription that has not touched the network.
func New(cfg Config) *Subscription {
	cfg.defaults()
	return &Subscription{
		cfg: cfg, metrics: cfg.Metrics,
		queue: make(chan Delivery, maxQueued), room: semaphore.NewWeighted(cfg.QueueBytes),
	}
}

// Run reads from behind the checkpoint and calls deliver, one at a time, from one goroutine;
// reading and parsing go on ahead of it. It returns nil when ctx ends, deliver's error, or an
// error that only a change of the program or the database cures. Everything that the network,
// the server or the stream does is waited out; State tells of it.
func (s *Subscription) Run(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, Delivery) error) error {
	if from.Origin != s.cfg.Origin {
		return fmt.Errorf("subscribe to %s: the checkpoint is of origin %q", s.cfg.Origin, from.Origin)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return guard.Run("reading the stream of "+s.cfg.Origin, func() error { return newFollower(s, from).run(ctx) })
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case d := <-s.queue:
				if err := s.deliver(ctx, d, deliver); err != nil {
					return err
				}
			}
		}
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Subscription) deliver(ctx context.Context, d Delivery, fn func(context.Context, Delivery) error) error {
	defer s.room.Release(s.weight(d.Bytes))
	s.queued.Add(-1)
	if err := failpoint.Hit("subscription_before_deliver"); err != nil {
		return err
	}
	if err := fn(ctx, d); err != nil {
		return fmt.Errorf("deliver frame %s: %w", d.Header.MsgID(), err)
	}
	return nil
}

// enqueue waits for room; the reader's side of the queue.
func (s *Subscription) enqueue(ctx context.Context, d Delivery) error {
	if err := s.room.Acquire(ctx, s.weight(d.Bytes)); err != nil {
		return err
	}
	s.queued.Add(1)
	select {
	case s.queue <- d:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// weight is what a delivery takes of the queue.
func (s *Subscription) weight(bytes int) int64 {
	return min(int64(bytes)+1024, s.cfg.QueueBytes)
}
