package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
)

const (
	// tickEvery is how often silence is looked for while frames are under way or nothing flows,
	// restEvery while there is nothing to wait for.
	tickEvery = 100 * time.Millisecond
	restEvery = time.Second
	infoEvery = 2 * time.Second
	// maxBackoff is the longest pause between two tries to read the stream.
	maxBackoff = 2 * time.Second
	// repairAfter is how long the server may be unable to store before Repair is called.
	repairAfter = 5 * time.Second
	// repairRest is the longest pause between two calls of it.
	repairRest = 2 * time.Minute
)

// Codes of JetStream errors that nats.go has no name for.
const (
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeStorageExceeded       jetstream.ErrorCode = 10047
	codeOtherStream           jetstream.ErrorCode = 10060
	codeStoreFailed           jetstream.ErrorCode = 10077 // its text tells a full stream from others
)

// Run takes acknowledgements, settles failures and keeps the figures until ctx ends (nil) or
// the publisher cannot go on: ErrFenced, ErrStreamLost, or a frame that no server takes.
func (p *Publisher) Run(ctx context.Context) error {
	if p.sub == nil {
		return errors.New("run publisher: it is not started")
	}
	defer p.Close()
	down := p.cfg.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer p.cfg.Conn.RemoveStatusListener(down)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	rhythm := tickEvery

	r := runner{p: p}
	for {
		ticked := false
		select {
		case <-ctx.Done():
			return p.ended(nil)
		case m := <-p.acks:
			if err := failpoint.Hit("publisher_before_ack"); err != nil {
				return p.ended(err)
			}
			p.ack(m)
		case <-p.wake:
		case _, open := <-down:
			if !open {
				down = nil
			}
			p.lock(func() { p.breakOff(nats.ErrDisconnected) })
		case <-tick.C:
			p.watch()
			r.refresh(ctx)
			ticked = true
		}
		p.mu.Lock()
		m, fatal := p.mode, p.fatal
		want := p.rhythm()
		p.mu.Unlock()
		// At a tick only: frames come and go many times between two.
		if want != rhythm && (ticked || m != flowing) {
			rhythm = want
			tick.Reset(rhythm)
		}
		if fatal == nil && m == broken {
			r.reconcile(ctx)
			p.lock(func() { fatal = p.fatal })
		}
		if fatal != nil {
			return p.ended(fatal)
		}
	}
}

// ended lets a waiting Publish return.
func (p *Publisher) ended(err error) error {
	p.lock(func() {
		if p.fatal == nil {
			p.fatal = err
			if err == nil {
				p.fatal = context.Canceled
			}
		}
		poke(p.space)
	})
	return err
}

func (p *Publisher) lock(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// pubAck is the server's answer to a publish.
type pubAck struct {
	Stream    string              `json:"stream"`
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
}

// ack takes one answer. Answers come in the order of the publishes, so the first bad one
// names the reason, and those behind it say nothing new.
func (p *Publisher) ack(m *nats.Msg) {
	p.mu.Lock()
	attempt, number := token(m.Subject)
	e := p.window.find(number)
	if attempt != p.attempt || e == nil || p.mode == broken {
		p.mu.Unlock()
		return
	}
	var a pubAck
	switch {
	case len(m.Data) == 0 && m.Header.Get("Status") == "503":
		p.breakOff(nats.ErrNoResponders)
	case json.Unmarshal(m.Data, &a) != nil:
		p.breakOff(errors.New("the answer to a publish does not parse"))
	case a.Error != nil:
		p.refused(a.Error)
	case a.Stream != p.name:
		p.die(fmt.Errorf("stream %s took a frame of ours: %w", a.Stream, ErrFenced))
	case a.Seq != e.expect+1:
		// The server remembers the id from a message that is no longer there.
		e.noID = e.noID || a.Duplicate
		p.breakOff(fmt.Errorf("a frame is at sequence %d instead of %d", a.Seq, e.expect+1))
	default:
		e.seq = a.Seq
		p.progress = time.Now()
		took := time.Since(e.sentAt)
		p.reach.Took(took)
		p.metrics.latency.Observe(took.Seconds())
	}
	done := p.settleAcked()
	p.mu.Unlock()
	p.durables(done)
}

// settleAcked takes the acknowledged frames off the window. The caller holds mu.
func (p *Publisher) settleAcked() []*entry {
	var done []*entry
	for p.window.sent > 0 && p.window.entries[0].seq != 0 {
		e := p.window.pop()
		p.durable = mark{pos: e.frame.Header.Position(), seq: e.seq}
		done = append(done, e)
	}
	if len(done) == 0 {
		return nil
	}
	p.noRoom = false
	if p.mode == full { // there is room again
		p.leaveFull()
	}
	p.sendAll()
	p.metrics.inFlight.Set(float64(len(p.window.entries)))
	poke(p.space)
	return done
}

func (p *Publisher) durables(done []*entry) {
	for _, e := range done {
		p.metrics.frames.Inc()
		p.metrics.bytes.Add(float64(len(e.frame.Data)))
		p.cfg.OnDurable(e.frame.Header, e.seq)
	}
}

// refused handles an error answer. The caller holds mu.
func (p *Publisher) refused(e *jetstream.APIError) {
	switch {
	case e.ErrorCode == codeOtherStream:
		p.die(fmt.Errorf("another stream takes our subject: %w: %w", ErrFenced, e))
	case e.ErrorCode == codeStoreFailed && strings.Contains(e.Description, "maximum"): // bytes, or messages
		p.enterFull(fmt.Errorf("%w: %s", ErrStreamFull, e.Description))
	case e.ErrorCode == codeStoreFailed, e.ErrorCode == codeInsufficientResources, e.ErrorCode == codeStorageExceeded:
		p.enterFull(fmt.Errorf("%w: %s", ErrResources, e.Description))
	default:
		p.breakOff(e)
	}
}

// enterFull waits with the whole window. The caller holds mu.
func (p *Publisher) enterFull(why error) {
	if p.mode != full {
		p.since = time.Now()
		p.cfg.Log.Warn("the stream takes nothing for want of room; holding", "stream", p.name,
			"lsn", p.durable.pos.EndLSN.String(), "error", why)
	}
	p.mode, p.problem = full, why
	p.attempt++
	p.next = p.window.entries[0].expect
	p.window.unsend()
	p.retryAt = time.Now().Add(p.cfg.FullRetry)
	p.metrics.streamFull.Set(1)
}

func (p *Publisher) leaveFull() {
	p.mode, p.problem = flowing, nil
	p.metrics.streamFull.Set(0)
	p.metrics.fullSeconds.Add(time.Since(p.since).Seconds())
	p.cfg.Log.Info("the stream has room again", "stream", p.name, "after", time.Since(p.since).Round(time.Millisecond))
}

// sendAll sends what is in the window and not under way, as far as it may be. The caller holds mu.
func (p *Publisher) sendAll() {
	for p.mode == flowing && p.fatal == nil && p.window.within(p.reach.Bytes()) {
		p.send(p.window.entries[p.window.sent])
	}
}

// rhythm is how often watch has to look. What begins to be under way between two looks is seen at the next
// one, so silence is found late by restEvery at most. The caller holds mu.
func (p *Publisher) rhythm() time.Duration {
	if p.mode == flowing && len(p.window.entries) == 0 {
		return restEvery
	}
	return tickEvery
}

// watch notices silence, and tries a full stream again.
func (p *Publisher) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.window.sent > 0 && p.mode != broken && time.Since(p.progress) > p.cfg.AckTimeout+patience(p.window.entries[0]):
		p.breakOff(fmt.Errorf("no acknowledgement for %s", time.Since(p.progress).Round(time.Millisecond)))
	case p.mode == full && p.window.sent == 0 && len(p.window.entries) > 0 && time.Now().After(p.retryAt):
		p.send(p.window.entries[0]) // one frame is enough to find out
	}
}
