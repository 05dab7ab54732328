package sink

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/internal/failpoint"
	"github.com/pgwaltz/pgwaltz/wire"
)

// PublisherConfig is fixed for the life of a Publisher. Zero numbers mean the defaults.
type PublisherConfig struct {
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
	// AckTimeout is how long no acknowledgement may come before the stream is read; 5 s.
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
	Metrics *PublisherMetrics
}

func (c *PublisherConfig) defaults() {
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
		c.Metrics = NewPublisherMetrics(nil)
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
	cfg     PublisherConfig
	name    string
	subject string
	inbox   string
	metrics *PublisherMetrics

	wake  chan struct{} // one token: Publish has something for Run
	space chan struct{} // one token: the window has room, or there is none to come

	acks chan *nats.Msg
	sub  *nats.Subscription

	mu       sync.Mutex
	mode     mode
	started  bool
	fatal    error
	problem  error // why mode is not flowing
	since    time.Time
	attempt  uint64 // of sending the window; acknowledgements of an earlier one are void
	window   window
	next     uint64 // the stream's last sequence once everything sent is stored
	durable  mark
	progress time.Time // last acknowledgement or first send after quiet
	retryAt  time.Time // next try while mode is full
	info     PublisherState
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

// NewPublisher returns a publisher that has not touched the stream.
func NewPublisher(cfg PublisherConfig) *Publisher {
	cfg.defaults()
	return &Publisher{
		cfg: cfg, name: wire.StreamName(cfg.Cluster, cfg.Origin), subject: wire.Subject(cfg.Cluster, cfg.Origin),
		inbox: nats.NewInbox(), metrics: cfg.Metrics,
		wake: make(chan struct{}, 1), space: make(chan struct{}, 1),
		window: window{maxFrames: cfg.WindowFrames, maxBytes: cfg.WindowBytes},
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
			e := p.window.push(f)
			if p.mode == flowing {
				p.send(e)
			}
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

// send hands one frame to the connection. The caller holds mu. The connection buffers
// nothing while it is down, so an error means that the frame did not leave.
func (p *Publisher) send(e *entry) {
	e.expect = p.next
	m := nats.NewMsg(p.subject)
	m.Reply = p.inbox + "." + strconv.FormatUint(p.attempt, 10) + "." + strconv.FormatUint(e.frame.Header.Number, 10)
	m.Data = e.frame.Data
	m.Header.Set(jetstream.ExpectedStreamHeader, p.name)
	m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(e.expect, 10))
	if !e.noID {
		m.Header.Set(jetstream.MsgIDHeader, messageID(&e.frame))
	}
	if n := p.window.sent; n > 0 && !p.window.entries[n-1].noID {
		// The sequence alone does not keep the order: when somebody else stores k messages
		// while k frames of ours are under way, those are refused, and the next one's
		// expectation is true again.
		m.Header.Set(jetstream.ExpectedLastMsgIDHeader, messageID(&p.window.entries[n-1].frame))
	}
	if err := p.cfg.Conn.PublishMsg(m); err != nil {
		if errors.Is(err, nats.ErrMaxPayload) {
			p.die(fmt.Errorf("frame of %d bytes exceeds the server's max_payload of %d: lower publish.max_frame: %w",
				len(m.Data), p.cfg.Conn.MaxPayload(), err))
			return
		}
		p.breakOff(err)
		return
	}
	if p.window.sent == 0 {
		p.progress = time.Now()
	}
	e.sentAt = time.Now()
	p.window.sent++
	p.next++
}

// messageID tells frames with equal numbers apart: two publishers that go on after the same
// frame must not take each other's frames for their own.
func messageID(f *wire.Frame) string { return f.MsgID + "/" + hex.EncodeToString(f.Header.Chain[:8]) }

// breakOff stops sending until the stream has been read. The caller holds mu.
func (p *Publisher) breakOff(why error) {
	if p.mode != broken {
		p.since = time.Now()
		p.cfg.Log.Info("publishing is interrupted; reading the stream", "stream", p.name, "error", why)
	}
	if p.mode == full {
		p.metrics.streamFull.Set(0)
	}
	p.mode, p.problem = broken, why
	p.attempt++
	poke(p.wake)
}

// die ends the publisher. The caller holds mu.
func (p *Publisher) die(err error) {
	if p.fatal == nil {
		p.fatal, p.problem = err, err
	}
	poke(p.space)
	poke(p.wake)
}

// poke leaves a token, unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// token reads attempt and frame number from the subject of an acknowledgement.
func token(subject string) (attempt, number uint64) {
	parts := strings.Split(subject, ".")
	if len(parts) < 2 {
		return 0, 0
	}
	attempt, _ = strconv.ParseUint(parts[len(parts)-2], 10, 64)
	number, _ = strconv.ParseUint(parts[len(parts)-1], 10, 64)
	return attempt, number
}
