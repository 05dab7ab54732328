package replicator

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/replicator/framing"
	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// WAL is the source of the outbound pipe: the decoded WAL of this region.
type WAL interface {
	Items() <-chan slot.Item
	Taken(slot.Item)
	Ping()
}

// Stream is its sink: the region's own stream, one frame after the other.
type Stream interface {
	// Publish hands frames over in order. It blocks while too much is under way.
	Publish(ctx context.Context, frames []wire.Frame) error
	// InFlight is the number of frames handed over and not yet durable.
	InFlight() int
}

// Completer adds what the WAL leaves out of changes.
type Completer interface {
	// Complete is for what stamping needs: one transaction, or a part of one, before it is stamped.
	Complete(ctx context.Context, tx *wal.Transaction) error
	// Values is for the rest: stamped transactions that are to be published.
	Values(ctx context.Context, txs []*wal.Transaction) error
}

// Gate decides what of the WAL goes into the stream, and is told of it, by the goroutine of
// Outbound.Run.
type Gate interface {
	// LeftOut reports tables whose changes are not published although they are in the publication, for what was
	// committed at a position. The answer must be the same whenever the WAL is read.
	LeftOut(n wal.RelationName, commit wal.LSN) bool
	// Changed is told of each transaction that is framed, before any later packet.
	Changed(tx *wal.Transaction)
	// TooLarge is as in framing.Config.
	TooLarge(rel *wal.Relation, op wal.Op, size int)
	// Settle is called in front of each frame, when everything that the frame leaves behind was told. What of that
	// has to outlive the process is on disk when it returns: nobody decodes it again. After an error the frame is not sent.
	Settle(ctx context.Context) error
}

// OutboundConfig joins a WAL and a stream.
type OutboundConfig struct {
	Encoder wire.EncoderConfig
	// Tail is where the stream ends, or an incarnation begins.
	Tail wire.Position
	// Past watches what the WAL repeats of what was published before; nil when that is nothing.
	Past *checkpoint.Repetition
	// Resync marks a new incarnation that admits a gap.
	Resync bool
	// Resumed marks one that begins behind what the stream holds.
	Resumed bool
	// SameWAL, with Resync: what peers have applied before it counts.
	SameWAL bool
	// Newcomers marks one behind which all tables are copied, for peers that have applied nothing.
	Newcomers  bool
	Completer  Completer // may be nil
	Gate       Gate
	Stamper    *Stamper
	Local      *LocalWAL // is told how far the WAL is stamped; may be nil
	FrameBytes int
	Linger     time.Duration
	Heartbeat  time.Duration
	// Extra brings packets of other kinds: copied rows.
	Extra <-chan Extra
	Log   *slog.Logger
}

// Extra is a packet that does not come from the WAL.
type Extra = framing.Extra

// OutboundStats counts since the start of the pipe. Safe to read from anywhere.
type OutboundStats struct {
	Transactions, Rows, Frames atomic.Uint64
	Published                  atomic.Uint64 // EndLSN of the last frame handed over
	LastCommit                 atomic.Int64  // commit time of the newest transaction framed
	Sent                       atomic.Int64  // when the last frame was handed over, this clock
}

// Outbound moves transactions from the WAL to the stream. Run is its only goroutine.
type Outbound struct {
	cfg    OutboundConfig
	framer *framing.Framer
	stream Stream
	kick   chan struct{} // frames became durable
	proven atomic.Bool
	passed atomic.Uint64
	Stats  *OutboundStats

	pending []ready      // of the batch at hand: stamped and not framed
	handOn  func() error // frames them
}

// NewOutbound makes a pipe; Run runs it.
func NewOutbound(cfg OutboundConfig, stream Stream, stats *OutboundStats) *Outbound {
	stats.Published.Store(uint64(cfg.Tail.EndLSN))
	return &Outbound{cfg: cfg, stream: stream, Stats: stats, kick: make(chan struct{}, 1)}
}

// Durable tells the pipe that something under way was made durable. Safe from anywhere.
func (o *Outbound) Durable() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// Proven reports whether the WAL is proved to be the one that was published before. Until then
// no position may be confirmed and nothing merged. Safe from anywhere.
func (o *Outbound) Proven() bool { return o.proven.Load() }

// Passed is the position of the WAL up to which everything is durable in the stream or has
// nothing for it, as it was when nothing was under way last. Safe from anywhere.
func (o *Outbound) Passed() wal.LSN { return wal.LSN(o.passed.Load()) }

// Run moves until the context ends or something breaks. Among its errors is
// *checkpoint.HistoryError: the server was restored from an older state.
func (o *Outbound) Run(ctx context.Context, from WAL) error {
	o.framer = framing.New(framing.Config{
		Encoder: o.cfg.Encoder, Tail: o.cfg.Tail, Past: o.cfg.Past, Resync: o.cfg.Resync, Resumed: o.cfg.Resumed, Newcomers: o.cfg.Newcomers, SameWAL: o.cfg.SameWAL, FrameBytes: o.cfg.FrameBytes,
		Linger: o.cfg.Linger, Heartbeat: o.cfg.Heartbeat,
		Put:      func(f wire.Frame) error { return o.put(ctx, f) },
		TooLarge: o.cfg.Gate.TooLarge,
	}, time.Now())
	if err := o.framer.Begin(time.Now()); err != nil {
		return err
	}
	o.proven.Store(o.framer.Proven())
	due := time.NewTimer(time.Hour) // for what the framer gathers
	defer due.Stop()
	beat := time.NewTicker(max(o.cfg.Heartbeat/4, 10*time.Millisecond))
	defer beat.Stop()
	var armed time.Time // when due fires; zero: not at all
	for {
		fired, err := o.event(ctx, from, due.C, beat.C)
		if err != nil {
			return err
		}
		if fired {
			armed = time.Time{}
		}
		now, inFlight := time.Now(), o.stream.InFlight()
		if inFlight == 0 && o.framer.Gathered() == 0 && !o.framer.InParts() {
			o.passed.Store(uint64(o.framer.Decoded()))
		}
		at, err := o.framer.Next(now, inFlight)
		if err != nil {
			return err
		}
		// A timer that fires too early is set again then.
		if !at.IsZero() && (armed.IsZero() || at.Before(armed)) {
			due.Reset(at.Sub(now))
			armed = at
		}
	}
}

// event takes the next thing that happens. It reports whether that was the timer of what is
// gathered.
func (o *Outbound) event(ctx context.Context, from WAL, due, beat <-chan time.Time) (bool, error) {
	extra := o.cfg.Extra
	if o.framer.Held() > maxHeld {
		extra = nil
	}
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case it, ok := <-from.Items():
		if !ok {
			if err := o.framer.Flush(time.Now()); err != nil {
				return false, err
			}
			return false, errWALEnded
		}
		err := o.item(ctx, it)
		from.Taken(it)
		return false, err
	case x := <-extra:
		o.framer.Hold(x)
		from.Ping()
		return false, nil
	case <-o.kick:
		return false, nil
	case <-due:
		return true, nil
	case <-beat:
		from.Ping()
		return false, o.framer.Beat(time.Now())
	}
}

// ErrUnproved says that stamping waits for the self-merge, which waits until the WAL is proved to be
// the one that was published. The pipe has to be opened anew, with Prove in front of Run.
var ErrUnproved = errors.New("the WAL has to be proved to be the one that was published before it is stamped")

// Flush hands on what is gathered, because stamping waits for it. Only the goroutine of Run may
// call it.
func (o *Outbound) Flush() error {
	if !o.framer.Proven() {
		return ErrUnproved
	}
	if o.handOn != nil {
		if err := o.handOn(); err != nil {
			return err
		}
	}
	return o.framer.Flush(time.Now())
}

// Prove reads the WAL, without stamping it, until it is proved to be the one that was published.
// Then the WAL has to be read again from the same position, by Run. Errors are those of Run.
func (o *Outbound) Prove(ctx context.Context, from WAL) error {
	o.framer = framing.New(framing.Config{
		Encoder: o.cfg.Encoder, Tail: o.cfg.Tail, Past: o.cfg.Past,
		Put: func(wire.Frame) error { return errors.New("a frame is published while the WAL is being proved") },
	}, time.Now())
	ping := time.NewTicker(max(o.cfg.Heartbeat/4, 10*time.Millisecond))
	defer ping.Stop()
	for !o.framer.Proven() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ping.C:
			from.Ping()
		case it, ok := <-from.Items():
			if !ok {
				return errWALEnded
			}
			err := o.prove(it)
			from.Taken(it)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *Outbound) prove(it slot.Item) error {
	for _, tx := range it.Transactions {
		told, left, err := o.publishable(tx)
		if err != nil {
			return err
		}
		if !told.Any() && !left && o.framer.Empty(tx) {
			err = o.framer.Passed(tx.EndLSN)
		} else {
			_, err = o.framer.Known(tx)
		}
		if err != nil {
			return err
		}
	}
	if it.Decoded != 0 {
		return o.framer.Passed(it.Decoded)
	}
	return nil
}

// maxHeld is from how many packets held back on no more are taken.
const maxHeld = 8

var errWALEnded = errors.New("the WAL reader has ended")

// item takes one batch of the WAL.
func (o *Outbound) item(ctx context.Context, it slot.Item) error {
	changes := 0
	for _, tx := range it.Transactions {
		changes += len(tx.Changes)
	}
	o.framer.Count(len(it.Transactions), changes, time.Now())
	if err := o.transactions(ctx, it.Transactions); err != nil {
		return err
	}
	if it.Decoded != 0 {
		if err := o.framer.Passed(it.Decoded); err != nil {
			return err
		}
		o.proven.Store(o.framer.Proven())
	}
	if o.cfg.Local != nil && it.Decoded != 0 {
		o.cfg.Local.Stamped(it.Decoded)
	}
	return nil
}

// ready is a stamped transaction on its way to the framer.
type ready struct {
	tx     *wal.Transaction
	told   Tells
	wanted bool // its position is to be published at once
	empty  bool // there is nothing but its position
}

// transactions takes transactions in the order of the WAL. What it leaves out of their images is
// asked for once for all of them.
func (o *Outbound) transactions(ctx context.Context, txs []*wal.Transaction) error {
	o.pending = make([]ready, 0, len(txs))
	o.handOn = func() error { return o.framePending(ctx) }
	for _, tx := range txs {
		r, err := o.stamped(ctx, tx)
		if err != nil {
			return err
		}
		o.pending = append(o.pending, r)
	}
	return o.handOn()
}

// framePending frames what is stamped.
func (o *Outbound) framePending(ctx context.Context) error {
	list := o.pending
	o.pending = nil
	filled := make([]*wal.Transaction, 0, len(list))
	for _, r := range list {
		if r.tx != nil && !r.empty {
			filled = append(filled, r.tx)
		}
	}
	if o.cfg.Completer != nil && len(filled) > 0 {
		if err := o.cfg.Completer.Values(ctx, filled); err != nil {
			return err
		}
	}
	for i := range list {
		if err := o.frame(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// stamped does what comes before framing. A transaction that the stream holds comes back as nil.
func (o *Outbound) stamped(ctx context.Context, tx *wal.Transaction) (ready, error) {
	r := ready{tx: tx}
	for i := range tx.Messages {
		r.wanted = r.wanted || tx.Messages[i].Prefix == SyncPrefix
	}
	told, left, err := o.publishable(tx)
	if err != nil {
		return r, err
	}
	r.told = told
	if !r.told.Any() && !left && o.framer.Empty(tx) {
		r.empty = true
		return r, nil
	}
	if o.cfg.Completer != nil {
		if err := o.cfg.Completer.Complete(ctx, tx); err != nil {
			return r, err
		}
	}
	if err := o.cfg.Stamper.Stamp(ctx, tx); err != nil {
		return r, err
	}
	known, err := o.framer.Known(tx)
	if err != nil {
		return r, err
	}
	if known {
		r.tx = nil
		return r, nil
	}
	o.cfg.Gate.Changed(tx)
	return r, nil
}

// frame hands a transaction to the framer.
func (o *Outbound) frame(r *ready) error {
	if r.wanted {
		o.framer.Want()
	}
	tx := r.tx
	switch {
	case tx == nil:
		return nil
	case r.empty:
		return o.framer.Passed(tx.EndLSN)
	}
	o.Stats.Rows.Add(uint64(len(tx.Changes)))
	if !tx.More && !tx.Applied {
		o.Stats.Transactions.Add(1)
		o.Stats.LastCommit.Store(int64(tx.CommitTime))
	}
	return o.framer.Add(r.told.With(tx), time.Now())
}

// publishable leaves out what is not published. left: a part of a giant transaction lost changes
// that way.
func (o *Outbound) publishable(tx *wal.Transaction) (told Tells, left bool, err error) {
	if told, err = TellsOf(tx); err != nil {
		return told, false, err
	}
	n := len(tx.Changes)
	tx.Changes = slices.DeleteFunc(tx.Changes, func(ch wal.Change) bool { return o.cfg.Gate.LeftOut(ch.Relation.Ref(), tx.CommitLSN) })
	return told, len(tx.Changes) < n && (tx.More || tx.Part > 0), nil // readers wait for every part
}

// SyncPrefix is the logical message after which the pipe publishes a position at once.
const SyncPrefix = "pgwaltz.sync"

// put hands one frame to the stream.
func (o *Outbound) put(ctx context.Context, f wire.Frame) error {
	if err := o.cfg.Gate.Settle(ctx); err != nil {
		return err
	}
	if err := o.stream.Publish(ctx, []wire.Frame{f}); err != nil {
		return err
	}
	o.Stats.Frames.Add(1)
	o.Stats.Sent.Store(int64(f.Header.SentAt))
	o.Stats.Published.Store(uint64(f.Header.EndLSN))
	return nil
}
