package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

// runner is what Run's goroutine alone remembers.
type runner struct {
	p        *Publisher
	backoff  time.Duration
	notUntil time.Time
	missing  int // looks in a row that found no stream
	infoAt   time.Time
	repairAt time.Time
	readAt   time.Time     // when a frame was last read from the stream
	rest     time.Duration // between two repairs
	refused  int           // looks in a row that found nothing of what was sent, though the stream can be read
	since    time.Time     // of the first of them
	end      uint64        // of the stream, at all of them
}

// reconcile reads the stream from the last frame known to be durable, and finds out which of
// the frames under way are stored. It returns with the publisher flowing, dead, or still
// broken to be tried again.
func (r *runner) reconcile(ctx context.Context) {
	p := r.p
	if time.Now().Before(r.notUntil) || !p.cfg.Conn.IsConnected() {
		r.explain()
		return
	}
	p.metrics.reconciles.Inc()
	p.mu.Lock()
	durable := p.durable
	pending := append([]*entry(nil), p.window.entries[:p.window.sent]...)
	p.mu.Unlock()

	found, err := p.inspect(ctx, durable, pending)
	if err != nil {
		if lost := errors.Is(err, ErrFenced) || errors.Is(err, ErrStreamLost); !lost && len(found.seqs) > 0 {
			// The server is slow. What was read need not be read again.
			r.readAt, r.backoff = time.Now(), 0
			p.durables(p.keep(pending, found))
		}
		r.unread(ctx, err)
		return
	}
	r.backoff, r.missing = 0, 0
	if len(pending) > 0 && len(found.seqs) == 0 {
		r.takesNothing(ctx, durable.seq)
	} else {
		r.refused, r.rest = 0, 0
	}
	p.durables(p.goOn(pending, found))
}

// takesNothing handles a stream that can be read and stores nothing, whatever is sent: a server whose disk
// was full says so once, and then refuses every frame for another reason until it starts again.
func (r *runner) takesNothing(ctx context.Context, end uint64) {
	if r.refused == 0 || end != r.end {
		r.refused, r.end, r.since = 0, end, time.Now()
	}
	r.refused++
	if r.refused < refusedOften {
		return
	}
	r.notUntil = time.Now().Add(min(50*time.Millisecond<<min(r.refused, 10), maxBackoff))
	r.p.lock(func() { r.p.noRoom = true })
	if time.Since(r.since) > repairAfter {
		r.repair(ctx, "the stream takes nothing")
	}
}

// refusedOften is how often in a row nothing of what was sent may be stored before that is a matter of the
// server.
const refusedOften = 4

// explain says why nothing is sent while a stream takes nothing.
func (r *runner) explain() {
	p := r.p
	p.lock(func() {
		if r.refused >= refusedOften && p.mode == broken && p.problem != nil && !errors.Is(p.problem, ErrResources) {
			p.problem = fmt.Errorf("%w: the stream refuses frames that continue it (%w); is the disk of its store full?", ErrResources, p.problem)
		}
	})
}

// unread handles a stream that could not be read: it is lost, or read again later.
func (r *runner) unread(ctx context.Context, err error) {
	p, missing := r.p, errors.Is(err, jetstream.ErrStreamNotFound)
	switch {
	case errors.Is(err, ErrFenced), errors.Is(err, ErrStreamLost):
		p.lock(func() { p.die(err) })
		return
	case missing && r.missing > 0:
		p.lock(func() { p.die(fmt.Errorf("%w: %w", ErrStreamLost, err)) })
		return
	case missing:
		r.missing++ // a server that is just starting may not have read its store yet
	}
	r.backoff = min(max(2*r.backoff, 50*time.Millisecond), maxBackoff)
	if r.missing > 0 {
		r.backoff = 500 * time.Millisecond
	}
	r.notUntil = time.Now().Add(r.backoff)
	var since time.Time
	p.lock(func() { p.problem, since = err, p.since })
	if p.cfg.Conn.IsConnected() && time.Since(since) > 3*repairAfter && time.Since(r.readAt) > 3*repairAfter {
		r.repair(ctx, "the stream cannot be read: "+err.Error())
	}
}

// keep settles the frames that were found, while the rest is still to be read. It returns what is
// durable.
func (p *Publisher) keep(pending []*entry, found inspection) []*entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, seq := range found.seqs {
		pending[i].seq = seq
	}
	return p.settleAcked()
}

// goOn settles what was under way and sends the rest again. It returns what is durable.
func (p *Publisher) goOn(pending []*entry, found inspection) []*entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, seq := range found.seqs {
		pending[i].seq = seq
	}
	p.window.sent = len(pending)
	done := p.settleAcked()
	p.window.unsend()
	p.attempt++ // whatever was sent before now is settled
	p.next = found.last
	p.mode, p.problem = flowing, nil
	p.progress = time.Now()
	again := len(pending) - len(done)
	p.metrics.republished.Add(float64(again))
	p.cfg.Log.Info("publishing goes on", "stream", p.name, "stored", len(done), "again", again, "after", time.Since(p.since).Round(time.Millisecond))
	p.sendAll()
	return done
}

type inspection struct {
	seqs []uint64 // of the pending frames that are stored: a prefix
	last uint64
}

// inspect compares what the stream holds behind the durable frame with the pending frames.
func (p *Publisher) inspect(ctx context.Context, durable mark, pending []*entry) (inspection, error) {
	s, err := p.lookup(ctx)
	if err != nil {
		return inspection{}, err
	}
	p.note(s.CachedInfo())
	state := s.CachedInfo().State
	in := inspection{last: state.LastSeq}
	if state.LastSeq < durable.seq {
		return in, fmt.Errorf("%w: it ends at sequence %d, frame %d was at %d", ErrStreamLost, state.LastSeq, durable.pos.Number, durable.seq)
	}
	if state.FirstSeq > durable.seq+1 && len(pending) > 0 {
		return in, fmt.Errorf("%w: it was purged up to sequence %d while frames were under way", ErrStreamLost, state.FirstSeq)
	}
	if durable.pos.Number > 0 && state.Msgs > 0 && durable.seq >= state.FirstSeq {
		m, err := p.message(ctx, s, durable.seq)
		if err != nil {
			return in, err
		}
		if m.kind != ownFrame || m.header.Position() != durable.pos {
			return in, fmt.Errorf("%w: frame %d is not at sequence %d any more", ErrStreamLost, durable.pos.Number, durable.seq)
		}
	}
	for seq := max(durable.seq+1, state.FirstSeq); seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := p.message(ctx, s, seq)
		if err != nil {
			return in, err
		}
		h := &m.header
		switch n := len(in.seqs); {
		case m.kind == unreadable:
			return in, fmt.Errorf("%w: sequence %d cannot be read (%s)", ErrStreamLost, seq, m.reason)
		case m.kind == foreignMessage:
			p.foreign(ForeignMessage{Seq: seq, Reason: m.reason, Bytes: m.size})
		case n < len(pending) && h.Position() == pending[n].frame.Header.Position():
			in.seqs = append(in.seqs, seq)
		case h.Incarnation < durable.pos.Incarnation,
			h.Incarnation == durable.pos.Incarnation && h.Number <= durable.pos.Number+uint64(n):
			p.foreign(ForeignMessage{Seq: seq, Reason: "copy of an older frame", Bytes: m.size})
		case pendingHas(pending[len(in.seqs):], h.Position()):
			// Stored before its predecessors; it comes again behind them.
			p.foreign(ForeignMessage{Seq: seq, Reason: "frame out of order", Bytes: m.size})
		default:
			return in, fmt.Errorf("%w: frame %d/%d at sequence %d is not ours", ErrFenced, h.Incarnation, h.Number, seq)
		}
	}
	return in, nil
}

func pendingHas(pending []*entry, pos wire.Position) bool {
	return slices.ContainsFunc(pending, func(e *entry) bool { return e.frame.Header.Position() == pos })
}

// repair asks for help, not more often than every repairAfter, and ever more seldom while it does
// not help: a machine that is slow is not made faster by it.
func (r *runner) repair(ctx context.Context, reason string) {
	if r.p.cfg.Repair == nil || time.Now().Before(r.repairAt) {
		return
	}
	r.rest = min(max(2*r.rest, repairAfter), repairRest)
	r.repairAt = time.Now().Add(r.rest)
	if err := r.p.cfg.Repair(ctx, reason); err != nil {
		r.p.cfg.Log.Warn("repairing the NATS server", "error", err)
	}
}

// refresh updates the figures, and notices a stream that was deleted or cut back while
// nothing was published.
func (r *runner) refresh(ctx context.Context) {
	p := r.p
	if time.Now().Before(r.infoAt) || !p.cfg.Conn.IsConnected() {
		return
	}
	r.infoAt = time.Now().Add(infoEvery)
	p.mu.Lock()
	m, problem, since, durable := p.mode, p.problem, p.since, p.durable
	p.mu.Unlock()
	if m == broken {
		return
	}
	if m == full && errors.Is(problem, ErrResources) && time.Since(since) > repairAfter {
		r.repair(ctx, problem.Error())
	}
	s, err := p.lookup(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		p.lock(func() { p.breakOff(err) })
	case err != nil:
	case s.CachedInfo().State.LastSeq < durable.seq:
		p.lock(func() { p.breakOff(errors.New("the stream ends before what it acknowledged")) })
	default:
		p.note(s.CachedInfo())
	}
}
