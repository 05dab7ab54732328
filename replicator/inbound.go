package replicator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wire"
)

// InboundConfig joins the stream of one origin and the local database.
type InboundConfig struct {
	Applier *apply.Applier
	// Subscribe pulls the origin's stream from a checkpoint on.
	Subscribe func(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error
	BatchRows int
	Linger    time.Duration
	// Committed is told of every checkpoint that was committed; it may not be durable yet.
	Committed func(checkpoint.Checkpoint)
	// Applied is told of the newest delivery of each commit; may be nil.
	Applied func(subscribe.Delivery)
	// Observe is told of a delivery before it is applied.
	Observe func(subscribe.Delivery)
	Kind    conflict.EventKind // Live, or Self for the own stream
	// Idle, when set, is asked while nothing waits for a delivery that was held back, given
	// how many deliveries were applied in this run.
	Idle func(applied int) *subscribe.Delivery
	// Restart, when set, is told that Run begins again at the checkpoint, with nothing
	// applied in the new run.
	Restart func()
	// Stop ends Run, with nil, once the batch in hand is committed.
	Stop <-chan struct{}
	Log  *slog.Logger
}

// Inbound moves packets from an origin's stream into the local database.
type Inbound struct {
	cfg InboundConfig
}

// NewInbound makes a pipe; Run runs it.
func NewInbound(cfg InboundConfig) *Inbound {
	if cfg.BatchRows <= 0 {
		cfg.BatchRows = 4000
	}
	return &Inbound{cfg: cfg}
}

// Run opens the applier and applies until the context ends or something breaks. It has to be
// called again after an error; it begins at the checkpoint then.
func (p *Inbound) Run(ctx context.Context) error {
	for {
		err := p.once(ctx)
		if !errors.Is(err, apply.ErrStartAgain) {
			return err
		}
		if p.cfg.Restart != nil {
			p.cfg.Restart()
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
	p.cfg.Committed(cp)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// One delivery is read ahead while a batch is applied; the subscription bounds bytes.
	ch := make(chan subscribe.Delivery, 16)
	done := make(chan error, 1)
	go func() {
		err := p.cfg.Subscribe(ctx, cp, func(ctx context.Context, d subscribe.Delivery) error {
			select {
			case ch <- d:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		cancel(err)
		done <- err
	}()
	err = p.apply(ctx, ch)
	cancel(err)
	suberr := <-done
	if ctx.Err() != nil && suberr != nil && err != nil && context.Cause(ctx) == suberr {
		return suberr
	}
	return err
}

func (p *Inbound) apply(ctx context.Context, ch <-chan subscribe.Delivery) error {
	var held *subscribe.Delivery
	var idle <-chan time.Time
	if p.cfg.Idle != nil {
		t := time.NewTicker(idleEvery)
		defer t.Stop()
		idle = t.C
	}
	taken := 0
	for {
		var batch []subscribe.Delivery
		own := false
		if held != nil {
			batch = append(batch, *held)
			held = nil
		} else {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.cfg.Stop:
				return nil
			case <-idle:
				d := p.cfg.Idle(taken)
				if d == nil {
					continue
				}
				batch, own = append(batch, *d), true
			case d := <-ch:
				batch = append(batch, d)
			}
		}
		if !own {
			batch, held = p.gather(ctx, batch, ch)
			taken += len(batch)
		}
		if batch[0].NewIncarnation {
			// A giant transaction whose end never came starts again.
			if err := p.cfg.Applier.Abandon(ctx); err != nil {
				return err
			}
		}
		units := make([]apply.Unit, len(batch))
		for i, d := range batch {
			if p.cfg.Observe != nil {
				p.cfg.Observe(d)
			}
			units[i] = apply.Unit{Transactions: d.Packet.Transactions, Kind: p.kind(d.Header.Kind), Next: d.Checkpoint}
			if i > 0 {
				units[i].Next.Transactions = 0
			}
		}
		if err := p.cfg.Applier.Apply(ctx, units); err != nil {
			return err
		}
		if !p.cfg.Applier.InParts() {
			if p.cfg.Applied != nil {
				p.cfg.Applied(batch[len(batch)-1])
			}
			p.cfg.Committed(p.cfg.Applier.Checkpoint())
		}
	}
}

func (p *Inbound) kind(k wire.Kind) conflict.EventKind {
	switch {
	case p.cfg.Kind == conflict.Self:
		return conflict.Self
	case k == wire.Copy:
		return conflict.Copy
	}
	return conflict.Live
}

// gather adds what is there already, up to a batch. Under load it waits a moment for more:
// one commit for many transactions is what makes it fast; when idle it does not wait.
func (p *Inbound) gather(ctx context.Context, batch []subscribe.Delivery, ch <-chan subscribe.Delivery) ([]subscribe.Delivery, *subscribe.Delivery) {
	rows := batch[0].Packet.Rows()
	if inParts(batch[0]) {
		return batch, nil
	}
	var linger <-chan time.Time
	for rows < p.cfg.BatchRows {
		select {
		case d := <-ch:
			if inParts(d) || d.NewIncarnation {
				return batch, &d
			}
			batch = append(batch, d)
			rows += d.Packet.Rows()
			continue
		default:
		}
		if p.cfg.Linger <= 0 || rows < busyRows {
			return batch, nil
		}
		if linger == nil {
			t := time.NewTimer(p.cfg.Linger)
			defer t.Stop()
			linger = t.C
		}
		select {
		case d := <-ch:
			if inParts(d) || d.NewIncarnation {
				return batch, &d
			}
			batch = append(batch, d)
			rows += d.Packet.Rows()
		case <-linger:
			return batch, nil
		case <-ctx.Done():
			return batch, nil
		}
	}
	return batch, nil
}

// busyRows is from how many waiting rows on more are worth waiting for.
const busyRows = 200

// idleEvery is how often a held-back position is saved.
const idleEvery = 250 * time.Millisecond

// inParts reports whether a packet holds a part of a giant transaction; such packets are
// applied by themselves.
func inParts(d subscribe.Delivery) bool {
	for _, tx := range d.Packet.Transactions {
		if tx.More || tx.Part > 0 {
			return true
		}
	}
	return false
}
