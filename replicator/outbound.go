package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgwaltz/pgwaltz/source/slot"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Log is the source of the outbound pipe: the decoded log of this region.
type Log interface {
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

// OutboundConfig joins a log and a stream.
type OutboundConfig struct {
	Encoder wire.EncoderConfig
	// Tail is where the stream ends; what the log repeats at or below Tail.EndLSN was
	// published before.
	Tail wire.Position
	// TailSent is when the last frame was sent by its publisher's clock; 0 when unknown.
	TailSent wal.Micros
	// Resync marks a new incarnation that admits a gap.
	Resync     bool
	Stamper    *Stamper
	FrameBytes int
	Linger     time.Duration
	Heartbeat  time.Duration
	// Merge takes the changes that need self-merge, with the frame they are published in.
	Merge func(*wal.Transaction)
	// NeedsMerge tells which do.
	NeedsMerge func(*wal.Transaction, *wal.Change) bool
	// Changed is told of each transaction that is framed, before any later packet; may be nil.
	Changed func(*wal.Transaction)
	// Decoded is told how far the log is stamped and handed on.
	Decoded func(wal.LSN)
	// Extra brings packets of other kinds: repairs and copied rows.
	Extra <-chan Extra
	Log   *slog.Logger
}

// Extra is a packet that does not come from the log.
type Extra struct {
	Kind         wire.Kind
	Transactions []*wal.Transaction
	// After is the position that the log must have reached before the packet may go out:
	// copied rows must not overtake the changes that they already contain.
	After wal.LSN
	// Keep tells which of the changes still may go out, when their turn has come; nil: all.
	Keep func(*wal.Change) bool
	// Done is called when the packet was framed, with its last header.
	Done func(wire.Header)
}

// OutboundStats counts since the start of the pipe. Safe to read from anywhere.
type OutboundStats struct {
	Transactions, Rows, Frames atomic.Uint64
	Published                  atomic.Uint64 // EndLSN of the last frame handed over
	LastCommit                 atomic.Int64  // commit time of the newest transaction framed
	Sent                       atomic.Int64  // when the last frame was handed over, this clock
}

// Outbound moves transactions from the log to the stream. Run is its only goroutine.
type Outbound struct {
	cfg    OutboundConfig
	enc    *wire.Encoder
	stream Stream
	kick   chan struct{} // frames became durable
	Stats  *OutboundStats

	decoded   wal.LSN // everything at or below is framed or in the encoder
	published wal.LSN // EndLSN of the last frame
	inParts   bool
	force     bool       // somebody waits for a position
	newest    wal.Micros // commit time of the transaction added last
	rate      float64    // transactions per second, lately
	counted   int
	since     time.Time
	last      time.Time
	waiting   []Extra
}

// ErrForked means that the log repeats positions with other contents than those published:
// the server was restored from an older state.
var ErrForked = errors.New("the server's log differs from what was published of it")

// NewOutbound makes a pipe; Run runs it.
func NewOutbound(cfg OutboundConfig, stream Stream, stats *OutboundStats) *Outbound {
	o := &Outbound{cfg: cfg, stream: stream, Stats: stats, kick: make(chan struct{}, 1)}
	o.enc = wire.NewEncoder(cfg.Encoder, cfg.Tail)
	o.published, o.decoded = cfg.Tail.EndLSN, cfg.Tail.EndLSN
	stats.Published.Store(uint64(cfg.Tail.EndLSN))
	return o
}

// Durable tells the pipe that something under way was made durable. Safe from anywhere.
func (o *Outbound) Durable() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// Run moves until the context ends or something breaks.
func (o *Outbound) Run(ctx context.Context, log Log) error {
	o.last = time.Now()
	if o.cfg.Tail.Number == 0 {
		// The first frame of an incarnation says from where it continues.
		if err := o.cut(ctx, wire.Heartbeat, o.cfg.Tail.EndLSN); err != nil {
			return err
		}
	}
	linger := time.NewTimer(time.Hour)
	defer linger.Stop()
	beat := time.NewTicker(max(o.cfg.Heartbeat/4, 10*time.Millisecond))
	defer beat.Stop()
	armed := false
	items := log.Items()
	for {
		extra := o.cfg.Extra
		if len(o.waiting) > 8 {
			extra = nil // enough held back
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case it, ok := <-items:
			if !ok {
				if err := o.flush(ctx); err != nil {
					return err
				}
				return errLogEnded
			}
			err := o.item(ctx, it)
			log.Taken(it)
			if err != nil {
				return err
			}
		case x := <-extra:
			o.waiting = append(o.waiting, x)
			log.Ping()
		case <-o.kick:
		case <-linger.C:
			armed = false
			if err := o.flush(ctx); err != nil {
				return err
			}
		case <-beat.C:
			log.Ping()
			if time.Since(o.last) >= o.cfg.Heartbeat && !o.inParts {
				if err := o.flush(ctx); err != nil {
					return err
				}
				if time.Since(o.last) >= o.cfg.Heartbeat {
					if err := o.cut(ctx, wire.Heartbeat, o.decoded); err != nil {
						return err
					}
				}
			}
		}
		if err := o.extras(ctx); err != nil {
			return err
		}
		if o.enc.Len() == 0 {
			continue
		}
		if o.stream.InFlight() == 0 && !o.behind() && !o.busy() {
			// Nothing under way and in step: send at once.
			if err := o.flush(ctx); err != nil {
				return err
			}
		} else if !armed {
			// Otherwise gather, up to a frame or the linger.
			linger.Reset(o.linger())
			armed = true
		}
	}
}

// behind reports whether what is read now was committed a while ago: then nobody waits for
// the single transaction, and frames had better be full.
func (o *Outbound) behind() bool {
	return o.newest != 0 && wal.MicrosOf(time.Now())-o.newest > behindBy
}

// busy reports whether transactions come so fast that a frame for each would cost both
// regions more than the few milliseconds by which gathering delays them.
func (o *Outbound) busy() bool { return o.rate > busyRate }

// count notes transactions and measures their rate.
func (o *Outbound) count(n int) {
	o.counted += n
	if d := time.Since(o.since); d >= rateWindow {
		o.rate = float64(o.counted) / d.Seconds()
		o.counted, o.since = 0, time.Now()
	}
}

const (
	busyRate   = 1500 // transactions per second
	rateWindow = 50 * time.Millisecond

	behindBy     = wal.Micros(200 * time.Millisecond / time.Microsecond)
	behindLinger = 40 * time.Millisecond
)

// linger is how long to gather while something is under way: longer when many come.
func (o *Outbound) linger() time.Duration {
	switch {
	case o.behind():
		return max(o.cfg.Linger, behindLinger)
	case o.busy():
		return 2 * o.cfg.Linger
	}
	return o.cfg.Linger
}

var errLogEnded = errors.New("the log reader has ended")

// item takes one batch of the log.
func (o *Outbound) item(ctx context.Context, it slot.Item) error {
	o.count(len(it.Transactions))
	for _, tx := range it.Transactions {
		if err := o.transaction(ctx, tx); err != nil {
			return err
		}
	}
	if it.Decoded > o.decoded {
		o.decoded = it.Decoded
	}
	if o.cfg.Decoded != nil && it.Decoded != 0 {
		o.cfg.Decoded(it.Decoded)
	}
	if o.force && !o.inParts {
		o.force = false
		if o.enc.Len() > 0 {
			return o.flush(ctx)
		}
		return o.cut(ctx, wire.Heartbeat, o.decoded)
	}
	return nil
}

func (o *Outbound) transaction(ctx context.Context, tx *wal.Transaction) error {
	for i := range tx.Messages {
		if tx.Messages[i].Prefix == SyncPrefix {
			o.force = true
		}
	}
	if len(tx.Changes) == 0 && !o.inParts {
		o.decoded = max(o.decoded, tx.EndLSN)
		return nil
	}
	if err := o.cfg.Stamper.Stamp(tx); err != nil {
		return err
	}
	if o.known(tx) {
		if o.cfg.TailSent != 0 && tx.CommitTime > o.cfg.TailSent+forkSlack {
			return fmt.Errorf("transaction at %s was committed after the frame that covers it was sent: %w", tx.CommitLSN, ErrForked)
		}
		o.merge(tx) // it may still wait for the self-merge
		return nil
	}
	if tx.More && tx.Part == 0 {
		if err := o.flush(ctx); err != nil { // parts start a packet of their own
			return err
		}
	}
	o.inParts = tx.More
	messages := tx.Messages
	tx.Messages = nil // positions and markers, nothing for a peer
	err := o.enc.Add(tx)
	tx.Messages = messages
	if err != nil {
		return err
	}
	o.merge(tx)
	if o.cfg.Changed != nil {
		o.cfg.Changed(tx)
	}
	o.Stats.Rows.Add(uint64(len(tx.Changes)))
	if !tx.More {
		o.decoded = max(o.decoded, tx.EndLSN)
		o.Stats.Transactions.Add(1)
		o.Stats.LastCommit.Store(int64(tx.CommitTime))
		o.newest = tx.CommitTime
	}
	if o.enc.Size() >= o.cfg.FrameBytes || tx.More {
		return o.flush(ctx)
	}
	return nil
}

// forkSlack allows for the clocks of server and sidecar, which usually are one.
const forkSlack = wal.Micros(2 * time.Second / time.Microsecond)

// SyncPrefix is the logical message after which the pipe publishes a position at once.
const SyncPrefix = "pgwaltz.sync"

// known reports whether the stream holds the transaction already.
func (o *Outbound) known(tx *wal.Transaction) bool {
	if tx.EndLSN != 0 {
		return tx.EndLSN <= o.cfg.Tail.EndLSN
	}
	return tx.CommitLSN < o.cfg.Tail.EndLSN
}

// merge hands on what needs self-merge.
func (o *Outbound) merge(tx *wal.Transaction) {
	if o.cfg.Merge == nil {
		return
	}
	var out *wal.Transaction
	for i := range tx.Changes {
		if !o.cfg.NeedsMerge(tx, &tx.Changes[i]) {
			continue
		}
		if out == nil {
			c := *tx
			c.Changes, c.Messages = nil, nil
			out = &c
		}
		out.Changes = append(out.Changes, tx.Changes[i])
	}
	if out != nil {
		o.cfg.Merge(out)
	}
}

// flush frames what was gathered.
func (o *Outbound) flush(ctx context.Context) error {
	if o.enc.Len() == 0 {
		return nil
	}
	end := o.decoded
	if o.inParts {
		end = 0
	}
	return o.cut(ctx, wire.Data, end)
}

func (o *Outbound) cut(ctx context.Context, kind wire.Kind, end wal.LSN) error {
	_, err := o.publish(ctx, kind, end)
	return err
}

func (o *Outbound) publish(ctx context.Context, kind wire.Kind, end wal.LSN) (wire.Header, error) {
	var flags wire.Flags
	if o.enc.Position().Number == 0 && o.cfg.Resync {
		flags = wire.Resync
	}
	var last wire.Header
	for f := range o.enc.CutSeq(kind, flags, end, wal.MicrosOf(time.Now())) {
		if err := o.stream.Publish(ctx, []wire.Frame{f}); err != nil {
			return last, err
		}
		last = f.Header
		o.Stats.Frames.Add(1)
		o.Stats.Sent.Store(int64(f.Header.SentAt))
	}
	o.published = last.EndLSN
	o.Stats.Published.Store(uint64(last.EndLSN))
	o.last = time.Now()
	return last, nil
}

// extras sends the held-back packets whose position has come.
func (o *Outbound) extras(ctx context.Context) error {
	for len(o.waiting) > 0 && !o.inParts && o.waiting[0].After <= o.decoded {
		x := o.waiting[0]
		o.waiting = o.waiting[1:]
		if err := o.flush(ctx); err != nil {
			return err
		}
		for _, tx := range x.Transactions {
			if x.Keep != nil {
				tx.Changes = slices.DeleteFunc(tx.Changes, func(ch wal.Change) bool { return !x.Keep(&ch) })
			}
			if err := o.enc.Add(tx); err != nil {
				return err
			}
		}
		h, err := o.publish(ctx, x.Kind, 0)
		if err != nil {
			return err
		}
		if x.Done != nil {
			x.Done(h)
		}
	}
	return nil
}
