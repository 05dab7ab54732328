package sidecar

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
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
	in := &inboundState{origin: s.cfg.Region, fresh: make(chan struct{}, 1)}
	a := apply.New(s.selfConfig())
	a.OnAudit(func(t audit.Tally) { s.noteConflicts(in, t) })
	m := merging{s, in, ownScreen()}
	pipe := replicator.NewInbound(replicator.InboundConfig{
		Feed: m, Applier: a, Progress: m, Self: replicator.NewSelfMerge(apply.PolicyFunc(s.policy), s.own), BatchRows: s.cfg.Apply.BatchRows, Log: s.log,
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

// merging is one run of the self-merge, as the pipe sees it.
type merging struct {
	s      *Sidecar
	in     *inboundState
	screen func(subscribe.Delivery)
}

// Subscribe implements replicator.Feed.
func (m merging) Subscribe(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
	m.s.out.selfRead(0, 0) // what was read of a transaction in parts is read again
	return m.s.subscribe(ctx, m.in, from, deliver)
}

// Coming implements replicator.Feed.
func (m merging) Coming() bool { return m.s.moving(m.s.cfg.Region) }

// Before implements replicator.Progress.
func (m merging) Before(d subscribe.Delivery) { m.screen(d) }

// Part implements replicator.Progress.
func (m merging) Part(d subscribe.Delivery) { m.s.out.selfRead(d.Header.Incarnation, d.Header.Number) }

// Applied implements replicator.Progress.
func (m merging) Applied([]subscribe.Delivery) { m.s.over("self-merge") }

// Committed implements replicator.Progress.
func (m merging) Committed(cp checkpoint.Checkpoint) {
	m.s.own.MergedTo(cp.EndLSN)
	m.s.out.selfDone(cp.Incarnation, cp.FrameNo)
	m.in.committed(cp)
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
