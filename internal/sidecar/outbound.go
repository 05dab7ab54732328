package sidecar

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// outboundState is what the rest of the process sees of the direction slot -> stream.
type outboundState struct {
	mu          sync.Mutex
	state       status.State
	reason      string
	gap         *status.GapInfo
	slot        *slot.Reader
	publisher   *publish.Publisher
	pipe        *replicator.Outbound
	row         *pg.Slot // as the catalog had it last
	seenAt      time.Time
	incarnation uint32
	// ownRead is how far the self-merge has applied a transaction in parts.
	ownRead, ownReadOf uint64
	// loose is the frame up to which frames were purged that not every peer has committed.
	loose    uint64
	reopened uint32  // the newest incarnation that admitted a gap
	start    wal.LSN // where the slot was when the run began
	begunAt  wal.LSN // where the stream was then
	frame    atomic.Uint64
	content  atomic.Uint64 // the last durable frame with changes
	durable  atomic.Uint64 // EndLSN of the last durable frame
	ends     course        // of this server's WAL
	// echoes and foreign are those of slot readers that have ended.
	echoes, foreign uint64
	riskKnown       atomic.Bool
	confirmed       atomic.Uint64
	atRisk          atomic.Uint64
	mode            atomic.Value // string
	acks            map[string]peerAck
	reopen          context.CancelCauseFunc // ends the run at hand
	newLife         bool                    // the next run starts a new incarnation
	lastRewind      time.Time
	budgets         map[string]*budget // of rewinds, by peer
	extra           chan replicator.Extra
	stats           replicator.OutboundStats
	stamper         *replicator.Stamper
	seqs            seqIndex
	chains          checkpoint.Chains // of the newest durable frames
	clock           clockStore
	prove           bool // the WAL is read twice: it is proved first
}

// fail notes why the direction does not flow.
func (o *outboundState) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != status.Gap {
		o.state, o.reason = status.Down, publicMessage(err)
		if pg.Code(err) == undefinedObject {
			o.reason += unpublished
		}
	}
}

// undefinedObject is what a walsender says of a publication that is not there, or was not when the
// WAL was written that it has to decode: it looks into the catalogs as they were then.
const undefinedObject = "42704"

const unpublished = ", or did not when this WAL was written: run pgwaltz setup, and if this stays pgwaltz resync --recreate-slot"

func (o *outboundState) set(state status.State, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.reason = state, reason
	if state != status.Gap {
		o.gap = nil
	}
}

// published takes note of a durable frame.
func (o *outboundState) published(h wire.Header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chains.Note(h.Number, h.Chain)
	o.frame.Store(h.Number)
}

// publish is one run of the outbound pipe: find out where the stream ends, where the slot
// begins, whether that fits, and move.
func (s *Sidecar) publish(ctx context.Context) error {
	o := &s.out
	ctx, reopen := context.WithCancelCause(ctx)
	defer reopen(nil)
	o.mu.Lock()
	o.reopen = reopen
	if o.extra == nil {
		o.extra = make(chan replicator.Extra, 256)
	}
	o.mu.Unlock()
	var pipe *replicator.Outbound
	pub, err := s.newPublisher(func(h wire.Header, seq uint64) {
		o.seqs.add(h, seq)
		if h.Kind != wire.Heartbeat {
			o.content.Store(h.Number)
		}
		o.published(h)
		o.durable.Store(max(o.durable.Load(), uint64(h.EndLSN)))
		pipe.Durable()
	})
	if err != nil {
		return err
	}
	tail, err := pub.Open(ctx)
	if err != nil {
		return err
	}
	begin, err := s.begin(ctx, tail)
	var busy *slotBusyError
	if errors.As(err, &busy) {
		o.set(status.Down, busy.Error())
		if err := pause.For(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		return errAgain
	}
	if err != nil {
		return err
	}
	if begin == nil {
		return s.awaitResync(ctx)
	}
	if err := pub.Start(begin.at, tail); err != nil {
		return err
	}
	slot := s.newSlot(begin.slot)
	c := s.completer()
	o.stamper = replicator.NewStamper(s.stampPolicy, s.own)
	pipe = replicator.NewOutbound(replicator.OutboundConfig{
		Encoder: wire.EncoderConfig{
			Cluster: s.cfg.Cluster, Origin: s.cfg.Region, Epoch: s.epoch,
			Compress: s.cfg.Publish.Compress, MaxFrame: int(s.cfg.Publish.MaxFrame), Sign: s.signer(),
		},
		Tail: begin.at, Past: begin.past, Resync: begin.resync,
		Complete: c.Complete, Values: c.Values,
		LeftOut: func(n wal.RelationName) bool { return s.cfg.Excluded(n.Schema, n.Name) },
		Stamper: o.stamper, FrameBytes: int(s.cfg.Publish.FrameBytes),
		Linger: s.cfg.Publish.Linger, Heartbeat: s.cfg.Publish.Heartbeat,
		Stamped: s.own.Stamped,
		Changed: s.watch.Changed,
		Extra:   o.extra, Log: s.log,
	}, stream{pub}, &o.stats)
	o.durable.Store(uint64(begin.at.EndLSN))
	o.mu.Lock()
	o.start, o.begunAt = begin.slot, begin.at.EndLSN
	o.confirmed.Store(uint64(begin.slot))
	o.slot, o.publisher, o.pipe, o.incarnation = slot, pub, pipe, begin.at.Incarnation
	o.reopened, o.loose = begin.reopened, begin.loose
	o.frame.Store(begin.at.Number)
	o.chains.Begin(begin.at.Incarnation, begin.at.Number, begin.at.Chain)
	o.content.Store(begin.at.Number)
	o.state, o.reason, o.gap, o.newLife = status.Replicating, "", nil, false
	o.mu.Unlock()
	if o.prove {
		err := s.proveFirst(ctx, begin, pipe)
		if errors.Is(err, checkpoint.ErrHistory) {
			return s.otherHistory(ctx, err)
		}
		if err != nil {
			return err
		}
		o.prove = false
	}
	if err := s.beginClock(ctx, begin.slot); err != nil {
		return err
	}
	s.own.Reading(slot.Ping, pipe.Flush)
	s.log.Info("publishing", "slot", s.cfg.Postgres.Slot, "lsn", begin.slot.String(), "incarnation", begin.at.Incarnation, "frame", begin.at.Number)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return guard.Run("reading the slot", func() error { return slot.Run(gctx, begin.slot) }) })
	g.Go(func() error { return guard.Run("publishing", func() error { return pub.Run(gctx) }) })
	g.Go(func() error { return guard.Run("the outbound pipe", func() error { return pipe.Run(gctx, slot) }) })
	g.Go(func() error {
		return guard.Run("storing the clock of the WAL", func() error { return s.storeClock(gctx) })
	})
	err = g.Wait()
	o.account(slot)
	switch {
	case errors.Is(context.Cause(ctx), errAgain):
		return errAgain
	case errors.Is(context.Cause(ctx), checkpoint.ErrInvariant):
		return context.Cause(ctx)
	case errors.Is(err, checkpoint.ErrHistory):
		return s.otherHistory(ctx, err)
	case errors.Is(err, replicator.ErrUnproved):
		o.prove = true
		return errAgain
	case errors.Is(err, publish.ErrStreamLost):
		s.log.Warn("the stream lost what was published; publishing again from the slot", "reason", publicMessage(err))
		return errAgain
	}
	return err
}

// proveFirst reads the WAL once up to where the stream ends, before it is read again and stamped.
func (s *Sidecar) proveFirst(ctx context.Context, begin *beginning, pipe *replicator.Outbound) error {
	s.log.Info("the WAL is proved to be the one that was published, before it is read again", "lsn", begin.slot.String())
	ctx, done := context.WithCancel(ctx)
	defer done()
	slot := s.newSlot(begin.slot)
	g, gctx := errgroup.WithContext(ctx)
	proved := false
	g.Go(func() error { return guard.Run("reading the slot", func() error { return slot.Run(gctx, begin.slot) }) })
	g.Go(func() error {
		defer done()
		return guard.Run("proving the WAL", func() error {
			err := pipe.Prove(gctx, slot)
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

// account keeps the counters of a slot reader that has ended.
func (o *outboundState) account(slot *slot.Reader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.echoes, o.foreign = o.echoes+slot.Echoes(), o.foreign+slot.Foreign()
	if o.slot == slot {
		o.slot = nil
	}
}

// stream gives the pipe what it needs of the publisher.
type stream struct{ *publish.Publisher }

func (p stream) InFlight() int { return p.State().InFlight }

func (s *Sidecar) newPublisher(durable func(wire.Header, uint64)) (*publish.Publisher, error) {
	js, err := s.broker.JS(s.cfg.Region)
	if err != nil {
		return nil, err
	}
	cfg := publish.Config{
		Cluster: s.cfg.Cluster, Origin: s.cfg.Region, Conn: s.broker.Conn(), JS: js,
		MaxBytes: int64(s.cfg.NATS.MaxBytes), Replicas: s.cfg.NATS.Replicas, PublicKey: s.publicKey(),
		OnDurable: durable, Log: s.log, Metrics: s.pubMetrics,
		OnForeign: func(f publish.ForeignMessage) {
			s.log.Warn("a message on our subject is not ours", "stream_seq", f.Seq, "reason", f.Reason)
		},
	}
	if s.broker.Embedded() {
		cfg.Repair = s.broker.Restart
	}
	return publish.New(cfg), nil
}

func (s *Sidecar) newSlot(start wal.LSN) *slot.Reader {
	return slot.New(slot.Config{
		Connect: s.connectSlot, Name: s.cfg.Postgres.Slot, Publications: []string{s.cfg.Postgres.Publication},
		Decoder: decoder.Config{
			MaxPart: maxPart, Marker: s.caps.token, ForwardOrigins: s.cfg.ForwardOrigins, Key: s.describe,
		},
		Confirm: s.confirm, StatusInterval: statusInterval,
		Started: func(ctx context.Context) error { return s.unmoved(ctx, start) },
	})
}

// maxPart is the size of the parts of a giant transaction in memory: some thousand rows.
const maxPart = 2 << 20

// unmoved looks, once nobody else can move the slot any more, whether it is still where it was
// when the beginning was decided. PostgreSQL silently begins at its own position otherwise.
func (s *Sidecar) unmoved(ctx context.Context, start wal.LSN) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		slot, err := pg.LoadSlot(ctx, c, s.cfg.Postgres.Slot)
		if err != nil {
			return err
		}
		if slot == nil || slot.ConfirmedFlushLSN > start {
			return fmt.Errorf("begin at %s: slot %q was moved meanwhile", start, s.cfg.Postgres.Slot)
		}
		return nil
	})
}

// statusInterval is how often positions are confirmed: a fraction of the smallest
// wal_sender_timeout that anybody sets.
const statusInterval = 500 * time.Millisecond
