package replicator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Applier is where the inbound pipe ends: it writes units into the local database. Only the
// goroutine of Inbound.Run calls it.
type Applier interface {
	// Open connects and returns the checkpoint to go on from.
	Open(ctx context.Context) (checkpoint.Checkpoint, error)
	// Apply writes units in one transaction; a redelivery below the checkpoint is left out.
	// After an error the applier has to be opened again.
	Apply(ctx context.Context, units []apply.Unit) error
	// InParts reports whether a transaction in parts is open: nothing of it is committed yet.
	InParts() bool
	// GivesWay reports whether a transaction in parts whose next part has not come for some time is to be
	// abandoned, because an earlier one waits for it, or because it has to begin again anyway.
	GivesWay() bool
	// Abandon rolls a transaction in parts back.
	Abandon(ctx context.Context) error
	// Checkpoint is that of the last commit.
	Checkpoint() checkpoint.Checkpoint
	Close()
}

// Feed is where the inbound pipe begins: the stream of one origin.
type Feed interface {
	// Subscribe hands on what follows a checkpoint, until deliver fails or the context ends. It is
	// called anew for each run; deliver is called by one goroutine, and may block.
	Subscribe(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error
	// Coming reports whether the origin is in reach, so that the next part is on its way however slow
	// the link is.
	Coming() bool
}

// Progress is told how an inbound pipe gets on, by the goroutine of Inbound.Run.
type Progress interface {
	// Before is told of a delivery before it is applied. It takes out of the packet what the origin may
	// not write here.
	Before(subscribe.Delivery)
	// Part is told of a part of a giant transaction that is applied and not committed.
	Part(subscribe.Delivery)
	// Applied is told of a batch that was committed.
	Applied(batch []subscribe.Delivery)
	// Committed is told of the checkpoint that a run begins at, and of every later one. It may not be
	// on disk yet.
	Committed(checkpoint.Checkpoint)
}

// InboundConfig joins the stream of one origin and the local database.
type InboundConfig struct {
	Feed     Feed
	Applier  Applier
	Progress Progress
	// Self, when set, says that the origin is this region itself, and what is to be merged of its stream.
	Self      *SelfMerge
	BatchRows int
	Linger    time.Duration
	// Quiet is for how long the next part of a giant transaction may not come before what is
	// applied of it is rolled back, so that nobody waits for its rows: the link may be cut for days.
	// 15 s. It doubles each time, so that a slow link brings the whole at last.
	Quiet time.Duration
	// Stop ends Run, with nil, once the batch in hand is committed.
	Stop <-chan struct{}
	Log  *slog.Logger
}

// maxQuiet bounds how long Quiet grows.
const maxQuiet = 10 * time.Minute

// quietTick is how often it is looked whether the next part is still worth waiting for.
const quietTick = time.Second

// Inbound moves packets from an origin's stream into the local database.
type Inbound struct {
	cfg   InboundConfig
	quiet time.Duration // what Quiet has grown to
}

// NewInbound makes a pipe; Run runs it.
func NewInbound(cfg InboundConfig) *Inbound {
	if cfg.BatchRows <= 0 {
		cfg.BatchRows = 4000
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = 15 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Inbound{cfg: cfg, quiet: cfg.Quiet}
}

// Run opens the applier and applies until the context ends or something breaks. It has to be
// called again after an error; it begins at the checkpoint then.
func (p *Inbound) Run(ctx context.Context) error {
	for {
		err := p.once(ctx)
		if !errors.Is(err, apply.ErrStartAgain) {
			return err
		}
		if p.cfg.Self != nil {
			p.cfg.Self.Restart()
		}
	}
}

// once reads and applies from the checkpoint on.
func (p *Inbound) once(ctx context.Context) error {
	cp, err := p.cfg.Applier.Open(ctx)
	if err != nil {
		return err
	}
	defer p.cfg.Applier.Close()
	p.cfg.Progress.Committed(cp)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Deliveries are read ahead while a batch is applied.
	ch, room := make(chan subscribe.Delivery, aheadFrames), semaphore.NewWeighted(aheadBytes)
	weight := func(d subscribe.Delivery) int64 { return min(int64(d.Bytes), aheadBytes) }
	done := make(chan error, 1)
	go func() {
		err := guard.Run("reading a stream", func() error {
			return p.subscribe(ctx, cp, func(ctx context.Context, d subscribe.Delivery) error {
				if err := room.Acquire(ctx, weight(d)); err != nil {
					return context.Cause(ctx)
				}
				select {
				case ch <- d:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		})
		cancel(err)
		done <- err
	}()
	err = p.apply(ctx, ch, func(d subscribe.Delivery) { room.Release(weight(d)) })
	cancel(err)
	suberr := <-done
	if ctx.Err() != nil && suberr != nil && err != nil && context.Cause(ctx) == suberr {
		return suberr
	}
	return err
}

// subscribe reads the stream; of the own one only what has something to merge.
func (p *Inbound) subscribe(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
	if p.cfg.Self == nil {
		return p.cfg.Feed.Subscribe(ctx, from, deliver)
	}
	return p.cfg.Feed.Subscribe(ctx, from, func(ctx context.Context, d subscribe.Delivery) error {
		return p.cfg.Self.Filter(ctx, d, deliver)
	})
}

// aheadBytes bounds what is read ahead of a batch, beside what the subscription holds. aheadFrames is
// as many small frames as the next batch can gather from it: each may have cost a wait for own changes.
const (
	aheadBytes  = 4 << 20
	aheadFrames = 1024
	// batchBytes is from how many bytes of values on a batch is full, however few its rows are: while one is applied the
	// next one is read, checked and parsed, which only what is read ahead allows.
	batchBytes = 1 << 20
)

// apply takes batch after batch; took is told of each delivery that it takes.
func (p *Inbound) apply(ctx context.Context, ch <-chan subscribe.Delivery, took func(subscribe.Delivery)) error {
	g := &gatherer{from: ch, took: took, limit: p.cfg.BatchRows, bytes: batchBytes, linger: p.cfg.Linger, self: p.cfg.Self, stop: p.cfg.Stop}
	defer g.close()
	for {
		g.quiet = 0
		if p.cfg.Applier.InParts() {
			g.quiet = quietTick
		}
		batch, err := g.next(ctx)
		for waited := g.quiet; errors.Is(err, errQuiet); waited += g.quiet {
			switch {
			case p.cfg.Applier.GivesWay():
				return p.giveWay(ctx)
			case waited >= p.quiet && !p.cfg.Feed.Coming(), waited >= maxQuiet:
				return p.giveBack(ctx)
			}
			batch, err = g.next(ctx)
		}
		if len(batch) == 0 || err != nil {
			return err
		}
		if err := p.batch(ctx, batch); err != nil {
			return err
		}
	}
}

// giveBack rolls a giant transaction back whose next part does not come, and begins again at the
// checkpoint, where it begins.
func (p *Inbound) giveBack(ctx context.Context) error {
	p.cfg.Log.Info("the next part of a giant transaction does not come; what is applied of it is given back until it does", "waited", p.quiet)
	p.quiet = min(2*p.quiet, maxQuiet)
	if err := p.cfg.Applier.Abandon(ctx); err != nil {
		return err
	}
	return apply.ErrStartAgain
}

// giveWay rolls a giant transaction back whose next part does not come, as the applier wants it.
func (p *Inbound) giveWay(ctx context.Context) error {
	p.cfg.Log.Info("the next part of a giant transaction does not come; it gives way, and begins again")
	if err := p.cfg.Applier.Abandon(ctx); err != nil {
		return err
	}
	return apply.ErrStartAgain
}

// batch applies some deliveries in one transaction of the database, or one part of a giant one.
func (p *Inbound) batch(ctx context.Context, batch []subscribe.Delivery) error {
	if batch[0].NewIncarnation {
		// A giant transaction whose end never came starts again.
		if err := p.cfg.Applier.Abandon(ctx); err != nil {
			return err
		}
	}
	units := make([]apply.Unit, len(batch))
	for i, d := range batch {
		p.cfg.Progress.Before(d)
		units[i] = apply.Unit{Transactions: d.Packet.Transactions, Kind: p.kind(d.Header.Kind), Next: d.Checkpoint, Resync: d.Resync}
		if i > 0 {
			units[i].Next.Transactions = 0
		}
	}
	if err := p.cfg.Applier.Apply(ctx, units); err != nil {
		return err
	}
	if p.cfg.Applier.InParts() {
		p.cfg.Progress.Part(batch[len(batch)-1])
		return nil
	}
	p.quiet = max(p.cfg.Quiet, p.quiet/2)
	p.cfg.Progress.Applied(batch)
	p.cfg.Progress.Committed(p.cfg.Applier.Checkpoint())
	return nil
}

func (p *Inbound) kind(k wire.Kind) conflict.EventKind {
	switch {
	case p.cfg.Self != nil:
		return conflict.Self
	case k == wire.Copy:
		return conflict.Copy
	}
	return conflict.Live
}
