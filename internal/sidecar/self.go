package sidecar

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
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
	a.OnAudit(func(rs []audit.Record) { s.noteConflicts(in, rs) })
	read := s.subscribe(in)
	m := &merger{policy: policy}
	pipe := replicator.NewInbound(replicator.InboundConfig{
		Applier: a, Kind: conflict.Self, BatchRows: s.cfg.Apply.BatchRows,
		Subscribe: func(ctx context.Context, from checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
			return read(ctx, from, func(ctx context.Context, d subscribe.Delivery) error { return m.filter(ctx, d, deliver) })
		},
		Committed: func(cp checkpoint.Checkpoint) {
			s.own.mergedTo(cp.EndLSN)
			in.committed(cp, a)
		},
		Idle: m.idle, Restart: m.restart,
		Log: s.log,
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return pipe.Run(ctx) })
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
			s.own.safeTo(end)
		}
	})
	return g.Wait()
}

// selfConfig is what appliers of this region's own changes have in common.
func (s *Sidecar) selfConfig() apply.Config {
	cfg := s.applyConfig(s.cfg.Region)
	cfg.Self, cfg.Superseded, cfg.Barrier = true, s.superseded, nil
	cfg.Replica = false
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
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// merger lets only those packets through that have something to merge. The checkpoint behind
// the others is saved when the applier is idle (Idle).
type merger struct {
	policy apply.Policy
	mu     sync.Mutex
	sent   int                 // packets let through
	last   *subscribe.Delivery // the newest packet left out, if nothing went through behind it
}

// idle returns the position behind packets that had nothing to merge, once everything before
// it is applied.
func (m *merger) idle(applied int) *subscribe.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || m.sent != applied {
		return nil
	}
	d := m.last
	m.last = nil
	return d
}

// restart forgets what went through: the pipe begins again at the checkpoint.
func (m *merger) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent, m.last = 0, nil
}

func (m *merger) filter(ctx context.Context, d subscribe.Delivery, deliver func(context.Context, subscribe.Delivery) error) error {
	some := false
	out := *d.Packet
	if d.Header.Kind == wire.Data {
		out.Transactions = make([]*wal.Transaction, 0, len(d.Packet.Transactions))
		for _, tx := range d.Packet.Transactions {
			c := *tx
			c.Changes, c.Notices = nil, nil
			for i := range tx.Changes {
				if apply.NeedsSelfMerge(m.policy, tx, &tx.Changes[i]) {
					c.Changes = append(c.Changes, tx.Changes[i])
				}
			}
			if len(c.Changes) > 0 {
				some = true
			}
			// Parts of a giant transaction stay, so that its end is seen.
			if len(c.Changes) > 0 || c.More || c.Part > 0 {
				some = true
				out.Transactions = append(out.Transactions, &c)
			}
		}
	} else {
		out.Transactions = nil
	}
	d.Packet = &out
	m.mu.Lock()
	if !some {
		m.last = &d
		m.mu.Unlock()
		return nil
	}
	m.last = nil
	m.sent++
	m.mu.Unlock()
	return deliver(ctx, d)
}

// superseded reports whether a later own change of the key is on its way to the self-merge.
// To be sure, everything that is committed now must have been decoded.
func (s *Sidecar) superseded(ctx context.Context, rel wal.RelationName, key string, commit wal.LSN, part uint32) (bool, error) {
	after := place{commit, part}
	if s.own.later(rel, key, after) {
		return true, nil
	}
	at, err := s.insertLSN(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errBarrierTimeout)
	defer cancel()
	if err := s.own.waitDecoded(ctx, at); err != nil {
		return false, err
	}
	return s.own.later(rel, key, after), nil
}
