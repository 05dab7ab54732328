package publish

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

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Config is fixed for the life of a Publisher. Zero numbers mean the defaults.
type Config struct {
	Cluster, Origin string
	Conn            *nats.Conn
	JS              jetstream.JetStream // of the origin's own domain
	// MaxBytes is the size of the stream on disk; when it is full, publishing waits.
	MaxBytes int64
	Replicas int
	// Duplicates is the window in which the server knows message ids again; 2 min. It only
	// saves work: what counts is the expected sequence and the frame number.
	Duplicates time.Duration
	// WindowFrames and WindowBytes bound what is published and not yet acknowledged: 64
	// frames, 16 MiB. A single frame may always go.
	WindowFrames, WindowBytes int
	// AckTimeout is how long no acknowledgement may come before the stream is read; 5 s. A large
	// frame is given the time that a slow link needs for it.
	AckTimeout time.Duration
	// FullRetry is the pause between two tries on a full stream; 1 s.
	FullRetry time.Duration
	// KeepBytes is about how much Purge leaves behind what every peer has applied; 64 MiB.
	KeepBytes int64
	// PublicKey of the origin's own signatures; with it, frames on the subject that it did
	// not sign count as foreign.
	PublicKey ed25519.PublicKey

	// OnDurable is called once for every frame, in order, from Run's goroutine, as soon as
	// the frame is known to be in the stream. It must not call the Publisher.
	OnDurable func(h wire.Header, seq uint64)
	// OnForeign reports a message on the subject that is none of our frames.
	OnForeign func(f ForeignMessage)
	// Repair is asked when the server cannot help itself (resources that stay insufficient);
	// it may start the embedded server again. It is called from Run's goroutine.
	Repair  func(ctx context.Context, reason string) error
	Log     *slog.Logger
	Metrics *Metrics
}

func (c *Config) defaults() {
	or := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	duration := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&c.Replicas, 1)
	or(&c.WindowFrames, 64)
	or(&c.WindowBytes, 16<<20)
	duration(&c.Duplicates, 2*time.Minute)
	duration(&c.AckTimeout, 5*time.Second)
	duration(&c.FullRetry, time.Second)
	if c.KeepBytes <= 0 {
		c.KeepBytes = 64 << 20
	}
	if c.OnDurable == nil {
		c.OnDurable = func(wire.Header, uint64) {}
	}
	if c.OnForeign == nil {
		c.OnForeign = func(ForeignMessage) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
}

// Publisher puts the frames of one incarnation, and what continues it, into the origin's
// stream: in order, each once, without waiting for each. Every publish carries the sequence
// that must be the stream's last, so that nothing can come out of order, and of two
// publishers one is refused. What a failure leaves open is decided by reading the stream.
//
// The order of calls is Open, Start, then Run in a goroutine of its own and Publish from one
// other. A Publisher whose Run has ended with ErrFenced or ErrStreamLost is done for; a new
// one opens the stream again. State and Purge may be called from anywhere.
type Publisher struct {
	cfg     Config
	name    string
	subject string
	inbox   string
	metrics *Metrics

	taken atomic.Uint64 // number of the last frame that was taken
	wake  chan struct{} // one token: Publish has something for Run
	space chan struct{} // one token: the window has room, or there is none to come

	acks chan *nats.Msg
	sub  *nats.Subscription

	mu       sync.Mutex
	mode     mode
	started  bool
	fatal    error
	problem  error // why mode is not flowing
	noRoom   bool  // the stream stores nothing, whatever is sent: its disk may be full
	since    time.Time
	attempt  uint64 // of sending the window; acknowledgements of an earlier one are void
	window   window
	reach    broker.Reach
	next     uint64 // the stream's last sequence once everything sent is stored
	durable  mark
	progress time.Time // last acknowledgement or first send after quiet
	retryAt  time.Time // next try while mode is full
	info     State
}

// mode is what the publisher does with frames.
type mode uint8

const (
	flowing mode = iota // sends at once
	broken              // sends nothing until the stream was read
	full                // sends the first frame now and then
)

// mark is a frame that is known to be in the stream, or the start of an incarnation.
type mark struct {
	pos wire.Position
	seq uint64 // its sequence; for a start, the stream's last one then
}

// New returns a publisher that has not touched the stream.
func New(cfg Config) *Publisher {
	cfg.defaults()
	return &Publisher{
		cfg: cfg, name: wire.StreamName(cfg.Cluster, cfg.Origin), subject: wire.Subject(cfg.Cluster, cfg.Origin),
		metrics: cfg.Metrics,
		wake:    make(chan struct{}, 1), space: make(chan struct{}, 1),
		window: window{maxFrames: cfg.WindowFrames, maxBytes: cfg.WindowBytes},
		reach:  broker.NewReach(4*broker.MinReach, cfg.WindowBytes),
	}
}

// Start sets where publishing goes on: pos is the place after tail's frame, or the beginning
// (Number 0) of an incarnation above it. tail is what Open returned.
func (p *Publisher) Start(pos wire.Position, tail Tail) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch h := tail.Header; {
	case p.started:
		return errors.New("start publisher: it was started before")
	case pos.Incarnation == 0:
		return errors.New("start publisher: incarnation 0")
	case pos.Number == 0 && tail.Found && pos.Incarnation <= h.Incarnation:
		return fmt.Errorf("start publisher: incarnation %d, but the stream holds %d: %w", pos.Incarnation, h.Incarnation, ErrFenced)
	case pos.Number != 0 && (!tail.Found || h.Position() != pos):
		return fmt.Errorf("start publisher at frame %d/%d: the stream ends with another frame: %w", pos.Incarnation, pos.Number, ErrStreamLost)
	}
	p.inbox = p.cfg.Conn.NewInbox() // where the user may hear: answers of the server, and nobody else's
	// Room for every acknowledgement that can be under way, and those of an attempt before.
	p.acks = make(chan *nats.Msg, 4*p.cfg.WindowFrames+64)
	sub, err := p.cfg.Conn.ChanSubscribe(p.inbox+".*.*", p.acks)
	if err != nil {
		return fmt.Errorf("start publisher: subscribe to acknowledgements: %w", err)
	}
	p.sub = sub
	p.durable = mark{pos: pos, seq: tail.Seq}
	if pos.Number == 0 {
		p.durable.seq = tail.LastSeq
	}
	p.next = tail.LastSeq
	p.started = true
	p.progress = time.Now()
	return nil
}

// Taken is the number of the last frame that may be in the stream; 0 before the first. It waits for
// nothing, as State may on a slow link.
func (p *Publisher) Taken() uint64 { return p.taken.Load() }

// Close ends what Start began, for a publisher whose Run was never called: Run does it by itself at
// its end. It may be called more than once.
func (p *Publisher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // the connection may be closed: then there is nothing to end
	}
}

// Publish takes frames in the order in which the encoder cut them, and returns when all are
// in the window: not yet durable. It blocks while the window is full. It is called from one
// goroutine. Errors: ctx's, ErrFenced, ErrStreamLost, or why a frame can never be stored.
func (p *Publisher) Publish(ctx context.Context, frames []wire.Frame) error {
	for i := range frames {
		if err := failpoint.Hit("publisher_before_publish"); err != nil {
			return err
		}
		if err := p.publish(ctx, frames[i]); err != nil {
			return fmt.Errorf("publish frame %s: %w", frames[i].MsgID, err)
		}
		if err := failpoint.Hit("publisher_after_publish"); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) publish(ctx context.Context, f wire.Frame) error {
	for {
		p.mu.Lock()
		switch {
		case p.fatal != nil:
			p.mu.Unlock()
			return p.fatal
		case !p.started:
			p.mu.Unlock()
			return errors.New("the publisher is not started")
		case p.window.room(len(f.Data)):
			p.window.push(f)
			p.taken.Store(f.Header.Number)
			p.sendAll()
			p.metrics.inFlight.Set(float64(len(p.window.entries)))
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		select {
		case <-p.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
