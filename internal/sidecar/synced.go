package sidecar

import (
	"context"
	"errors"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wire"
)

// syncEvery is how often what the stream has acknowledged is brought to disk. Positions are confirmed every
// statusInterval; nothing else waits for it.
const syncEvery = 250 * time.Millisecond

// keepSynced brings the stream to disk until the context ends. What is not there yet is not confirmed. It
// does nothing where the server waits for the disk itself.
func (s *Sidecar) keepSynced(ctx context.Context) error {
	o, failed := &s.out, ""
	for {
		if s.broker.Unsure() { // since this run began
			return broker.ErrStoreLost
		}
		at := o.durable.Load()
		if at > o.synced.Load() {
			err := error(nil)
			if s.broker.Lazy() {
				err = s.broker.Sync(wire.StreamName(s.cfg.Cluster, s.cfg.Region))
			}
			switch {
			case err == nil:
				o.synced.Store(max(o.synced.Load(), at))
			case errors.Is(err, broker.ErrStoreLost):
				return err
			case ctx.Err() == nil && err.Error() != failed: // where the stream is gone, the publisher finds that
				failed = err.Error()
				s.log.Warn("the stream is not brought to disk, and nothing more is confirmed", "reason", failed)
			}
		}
		if err := pause.For(ctx, syncEvery); err != nil {
			return err
		}
	}
}

// Whether something that was confirmed, or would be, stands in the stream alone.
const (
	needUnknown int32 = iota // nothing was decided in this run
	needNone
	needStream
)

// needOf is what a decision needs. lazy says that the stream may lose its end with a power cut: of a peer that was not
// heard of nobody knows what it lacks, which is no reason to begin to rely on the stream, nor to end it.
func needOf(in checkpoint.Inputs, rests checkpoint.Mode, risk uint64, lazy bool) int32 {
	if risk > 0 || rests == checkpoint.Published || !lazy && !in.RiskKnown() {
		return needStream
	}
	return needNone
}

// reliance counts the looks, one a second, that have shown the same need.
type reliance struct{ on, off int }

// A need has to last for that many looks: each change starts the embedded server again.
const (
	reliesAfter  = 3
	relaxesAfter = 300
)

// look takes one look. It reports whether the stream should be relied on, and whether that is to be said now.
func (r *reliance) look(need int32) (on, say bool) {
	switch need {
	case needStream:
		r.on, r.off = r.on+1, 0
		return true, r.on >= reliesAfter
	case needNone:
		r.on, r.off = 0, r.off+1
		return false, r.off >= relaxesAfter
	}
	*r = reliance{}
	return false, false
}

// keepReliance tells the broker whether the stream may hold what is nowhere else.
func (s *Sidecar) keepReliance(ctx context.Context, r *reliance) error {
	on, say := r.look(s.out.needs.Load())
	if !say || !on && !s.out.doubt(s.broker) {
		return nil
	}
	return s.broker.Rely(ctx, on)
}

// doubt takes care that nothing is confirmed any more that would stand in the stream alone. It reports whether nothing does.
func (o *outboundState) doubt(b *broker.Broker) bool {
	o.deciding.Lock()
	defer o.deciding.Unlock()
	if o.needs.Load() != needNone {
		return false
	}
	b.Doubt()
	return true
}
