package sidecar

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// The self-merge reads this region's own stream, as a peer does, and runs the changes that
// need it (deletes, later generations, tables without stamp columns) through the applier. So
// tombstones have the very stamps that were published, and a checkpoint row of its own makes
// a restart resume where it was.

// merge is one run of the self-merge.
func (s *Sidecar) merge(ctx context.Context) error {
	if err := s.awaitProof(ctx); err != nil {
		return err
	}
	policy := apply.PolicyFunc(s.policy)
	in := &inboundState{origin: s.cfg.Region, fresh: make(chan struct{}, 1)}
	a := apply.New(s.selfConfig())
	a.OnAudit(func(t audit.Tally) { s.noteConflicts(in, t) })
	read := s.subscribe(in)
	m := replicator.NewSelfMerge(policy, s.own)
	pipe := replicator.NewInbound(replicator.InboundConfig{
		Applier: a, Kind: conflict.Self, BatchRows: s.cfg.Apply.BatchRows,
		Subscribe: func(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
			return read(ctx, from, func(ctx context.Context, d subscribe.Delivery) error { return m.Filter(ctx, d, deliver) })
		},
		Committed: func(cp checkpoint.Checkpoint) {
			s.own.MergedTo(cp.EndLSN)
			in.committed(cp, a)
		},
		Applied: func(subscribe.Delivery) { s.over("self-merge") },
		Read:    func(d subscribe.Delivery) { s.out.selfRead(d.Header.Incarnation, d.Header.Number) },
		Screen:  ownScreen(),
		Idle:    m.Idle, Restart: m.Restart,
		Coming: func() bool { return s.moving(s.cfg.Region) },
		Log:    s.log,
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return guard.Run("the self-merge", func() error { return pipe.Run(ctx) }) })
	g.Go(func() error {
		// Only what is on disk lets the slot forget.
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-in.fresh:
			}
			if err := s.flushed(ctx, in); err != nil {
				return err
			}
			in.mu.Lock()
			end := in.acked.EndLSN
			in.mu.Unlock()
			s.own.SafeTo(end)
			if err := pause.For(ctx, ackEvery); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// selfConfig is what appliers of this region's own changes have in common.
func (s *Sidecar) selfConfig() apply.Config {
	cfg := s.applyConfig(s.cfg.Region)
	cfg.Self, cfg.WaitStamped, cfg.Barrier = true, s.own.WaitStamped, nil
	if s.caps.replica {
		cfg.Ordinary = nil // its session checks no foreign keys: there are no cascades to be done before
	}
	if names := s.cfg.PeerNames(); len(names) > 0 {
		cfg.Peer = names[0]
	}
	return cfg
}

// awaitProof waits until the WAL is proved to be the one that the stream was published from:
// of a database that was restored, the stream may hold changes that it never made.
func (s *Sidecar) awaitProof(ctx context.Context) error {
	for {
		s.out.mu.Lock()
		pipe := s.out.pipe
		s.out.mu.Unlock()
		if pipe != nil && pipe.Proven() {
			return nil
		}
		if err := pause.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
