package sidecar

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// outboundRun is one run of the direction slot -> stream.
type outboundRun struct {
	begin     *beginning
	slot      *slot.Reader
	publisher *publish.Publisher
	pipe      *replicator.Outbound
}

// publish is one run of the outbound pipe: find out where the stream ends, where the slot
// begins, whether that fits, and move.
func (s *Sidecar) publish(ctx context.Context) error {
	ctx, reopen := context.WithCancelCause(ctx)
	defer reopen(nil)
	s.out.mayReopen(reopen)
	defer s.out.over()
	r := &outboundRun{}
	var err error
	if r.publisher, err = s.newPublisher(func(h wire.Header, seq uint64) { s.stored(h, seq, r.pipe) }); err != nil {
		return err
	}
	tail, err := r.publisher.Open(ctx)
	if err != nil {
		return err
	}
	r.begin, err = s.begin(ctx, tail)
	if busy := new(slotBusyError); errors.As(err, &busy) {
		return s.awaitSlot(ctx, busy)
	}
	if errors.Is(err, errUnread) {
		return s.readUnread(ctx, tail)
	}
	if err != nil {
		return err
	}
	if r.begin == nil {
		return s.awaitResync(ctx)
	}
	defer r.publisher.Close()
	if err := r.publisher.Start(r.begin.at, tail); err != nil {
		return err
	}
	r.slot = s.newSlot(r.begin.slot)
	s.out.stamper = replicator.NewStamper(s.stampPolicy, s.own)
	r.pipe = s.newOutbound(r)
	s.out.began(r, s.broker.Lazy())
	if tail.Found && tail.Header.Incarnation == r.begin.at.Incarnation {
		// A stream that is full takes no frame from which the index could learn where the others are.
		s.out.seqs.add(tail.Header, tail.Seq)
	}
	if s.out.prove {
		err := s.proveFirst(ctx, r)
		if errors.Is(err, checkpoint.ErrHistory) {
			return s.otherHistory(ctx, err)
		}
		if err != nil {
			return err
		}
		s.out.prove = false
	}
	s.clock.Begin(r.begin.from, r.begin.clock)
	return s.ended(ctx, s.flow(ctx, r))
}

// mayReopen takes note of what ends the run at hand.
func (o *outboundState) mayReopen(reopen context.CancelCauseFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reopen = reopen
	if o.extra == nil {
		o.extra = make(chan replicator.Extra, 256)
	}
}

// over takes note of the end of a run.
func (o *outboundState) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live = false
}

// stored takes note of a frame that the stream has acknowledged, and tells the pipe.
func (s *Sidecar) stored(h wire.Header, seq uint64, pipe *replicator.Outbound) {
	o := &s.out
	o.seqs.add(h, seq)
	if h.Kind != wire.Heartbeat {
		o.content.Store(h.Number)
	}
	o.published(h)
	o.durable.Store(max(o.durable.Load(), uint64(h.EndLSN)))
	if !s.broker.Lazy() {
		o.synced.Store(o.durable.Load())
	}
	pipe.Durable()
}

// awaitSlot waits a moment for a slot that another session reads.
func (s *Sidecar) awaitSlot(ctx context.Context, busy *slotBusyError) error {
	s.out.set(status.Down, busy.Error())
	if err := pause.For(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	return errAgain
}

// newOutbound makes the pipe of a run.
func (s *Sidecar) newOutbound(r *outboundRun) *replicator.Outbound {
	c := s.completer()
	c.Nameless, c.Unable = s.members.Nameless, s.members.Unable
	return replicator.NewOutbound(replicator.OutboundConfig{
		Encoder: wire.EncoderConfig{
			Cluster: s.cfg.Cluster, Origin: s.cfg.Region, Epoch: s.epoch,
			Compress: s.cfg.Publish.Compress, MaxFrame: int(s.cfg.Publish.MaxFrame), Sign: s.signer(),
		},
		Tail: r.begin.at, Past: r.begin.past, Resync: r.begin.resync, Resumed: r.begin.resumed, Newcomers: r.begin.newcomers, SameWAL: r.begin.sameWAL,
		Completer: c, Gate: gate{s}, Local: s.own,
		Stamper: s.out.stamper, FrameBytes: int(s.cfg.Publish.FrameBytes),
		Linger: s.cfg.Publish.Linger, Heartbeat: s.cfg.Publish.Heartbeat,
		Extra: s.out.extra, Log: s.log,
	}, stream{r.publisher}, &s.out.stats)
}

// gate implements replicator.Gate.
type gate struct{ s *Sidecar }

func (g gate) LeftOut(n wal.RelationName, commit wal.LSN) bool { return g.s.leavesOut(n, commit) }

func (g gate) Changed(tx *wal.Transaction) { g.s.watch.Changed(tx) }

func (g gate) TooLarge(rel *wal.Relation, op wal.Op, size int) {
	g.s.members.TooLarge(rel, op, size)
}

func (g gate) Settle(ctx context.Context) error { return g.s.members.Settle(ctx, g.s.catalog.do) }

// began takes note of where a run begins.
func (o *outboundState) began(r *outboundRun, lazy bool) {
	at := r.begin.at
	o.durable.Store(uint64(at.EndLSN))
	o.needs.Store(needUnknown)
	o.synced.Store(0) // what the process before has stored may be in memory only
	if !lazy {
		o.synced.Store(uint64(at.EndLSN))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.start, o.begunAt = r.begin.slot, at.EndLSN
	o.confirmed.Store(uint64(r.begin.slot))
	o.passed.Store(0)
	o.slot, o.publisher, o.pipe, o.incarnation = r.slot, r.publisher, r.pipe, at.Incarnation
	o.reopened, o.knew, o.loose = r.begin.reopened, r.begin.knew, r.begin.loose
	o.frame.Store(at.Number)
	o.chains.Begin(at.Incarnation, at.Number, at.Chain)
	o.forgetRecalled()
	o.content.Store(at.Number)
	o.state, o.reason, o.gap, o.anew, o.live = status.Replicating, "", nil, false, true
}

// flow reads the slot and publishes until the context ends or something fails.
func (s *Sidecar) flow(ctx context.Context, r *outboundRun) error {
	s.own.Reading(r.slot, r.pipe, streamRoom{s, r.publisher})
	s.log.Info("publishing", "slot", s.cfg.Postgres.Slot, "lsn", r.begin.from.String(), "confirmed", r.begin.slot.String(), "incarnation", r.begin.at.Incarnation, "frame", r.begin.at.Number)
	g, gctx := errgroup.WithContext(ctx)
	for what, work := range map[string]func() error{
		"reading the slot":             func() error { return r.slot.Run(gctx, r.begin.from) },
		"publishing":                   func() error { return r.publisher.Run(gctx) },
		"the outbound pipe":            func() error { return r.pipe.Run(gctx, r.slot) },
		"recalling what peers have":    func() error { return s.recall(gctx, r.publisher) },
		"storing what every peer has":  func() error { return s.keepPassed(gctx, r.begin.at.Incarnation) },
		"bringing the stream to disk":  func() error { return s.keepSynced(gctx) },
		"storing the horizon":          func() error { return s.keepHorizon(gctx) },
		"storing the clock of the WAL": func() error { return s.clock.Run(gctx, func() wal.LSN { return wal.LSN(s.out.confirmed.Load()) }) },
	} {
		g.Go(func() error { return guard.Run(what, work) })
	}
	err := g.Wait()
	s.out.account(r.slot)
	return err
}

// ended says what the end of a run means: errAgain begins the next one at once.
func (s *Sidecar) ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errAgain):
		return errAgain
	case errors.Is(context.Cause(ctx), checkpoint.ErrInvariant):
		return context.Cause(ctx)
	case errors.Is(err, checkpoint.ErrHistory):
		return s.otherHistory(ctx, err)
	case errors.Is(err, replicator.ErrUnproved):
		s.out.prove = true
		return errAgain
	case errors.Is(err, publish.ErrStreamLost):
		s.log.Warn("the stream lost what was published; publishing again from the slot", "reason", publicMessage(err))
		return errAgain
	}
	return err
}

// proveFirst reads the WAL once up to where the stream ends, before it is read again and stamped.
func (s *Sidecar) proveFirst(ctx context.Context, r *outboundRun) error {
	s.log.Info("the WAL is proved to be the one that was published, before it is read again", "lsn", r.begin.from.String())
	ctx, done := context.WithCancel(ctx)
	defer done()
	reader := s.newSlot(r.begin.slot)
	g, gctx := errgroup.WithContext(ctx)
	proved := false
	g.Go(func() error {
		return guard.Run("reading the slot", func() error { return reader.Run(gctx, r.begin.from) })
	})
	g.Go(func() error {
		defer done()
		return guard.Run("proving the WAL", func() error {
			err := r.pipe.Prove(gctx, reader)
			proved = err == nil
			return err
		})
	})
	err := g.Wait()
	if proved {
		return nil
	}
	return err
}
