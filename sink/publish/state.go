package publish

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

// State is what status and metrics say of the publisher.
type State struct {
	// Durable is the place after the last frame known to be in the stream, Seq its sequence.
	Durable wire.Position
	Seq     uint64
	// InFlight frames are taken and not yet known to be durable.
	InFlight int
	// Messages, Bytes, FirstSeq and LastSeq are the stream's, at most a few seconds old.
	Messages, Bytes, FirstSeq, LastSeq uint64
	MaxBytes                           int64
	// Full: the stream takes nothing for want of room. Holding: something else keeps frames
	// from being published. Err says why, Since since when.
	Full, Holding bool
	Err           error
	Since         time.Time
}

// State is the present state.
func (p *Publisher) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.info
	s.Durable, s.Seq, s.InFlight = p.durable.pos, p.durable.seq, len(p.window.entries)
	s.Full, s.Holding, s.Err = p.fatal == nil && p.mode == full, p.fatal == nil && p.mode == broken, p.problem
	if p.problem != nil {
		s.Since = p.since
	}
	return s
}

// note keeps the stream's figures.
func (p *Publisher) note(info *jetstream.StreamInfo) {
	st := info.State
	p.lock(func() {
		p.info.Messages, p.info.Bytes, p.info.FirstSeq, p.info.LastSeq = st.Msgs, st.Bytes, st.FirstSeq, st.LastSeq
		p.info.MaxBytes = info.Config.MaxBytes
	})
	p.metrics.streamMessages.Set(float64(st.Msgs))
	p.metrics.streamBytes.Set(float64(st.Bytes))
	p.metrics.streamMaxBytes.Set(float64(info.Config.MaxBytes))
}

// Purge removes from the stream what lies before applied, the sequence up to which every
// required peer has applied durably. It leaves about KeepBytes of that, so that a peer that
// was set back a little finds it; less in a small stream, and nothing in one that is more
// than half full, or on a disk that has no room. The newest message always stays. It returns how many messages went.
func (p *Publisher) Purge(ctx context.Context, applied uint64) (uint64, error) {
	s, err := p.lookup(ctx)
	if err != nil {
		return 0, err
	}
	p.note(s.CachedInfo())
	st, limit := s.CachedInfo().State, s.CachedInfo().Config.MaxBytes
	p.mu.Lock()
	keep := keepBytes(st.Bytes, limit, p.cfg.KeepBytes, p.mode == full || p.noRoom)
	upTo := min(applied+1, p.durable.seq) // everything below goes
	p.mu.Unlock()
	if st.Msgs == 0 || upTo <= st.FirstSeq {
		return 0, nil
	}
	// Message sizes are not known here; their mean is good enough for a margin.
	if back := keep / max(st.Bytes/st.Msgs, 1); upTo > back {
		upTo -= back
	} else {
		return 0, nil
	}
	if upTo <= st.FirstSeq {
		return 0, nil
	}
	call, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if err := s.Purge(call, jetstream.WithPurgeSequence(upTo)); err != nil {
		return 0, fmt.Errorf("purge %s below sequence %d: %w", p.name, upTo, err)
	}
	p.lock(func() { p.retryAt = time.Now() })
	return upTo - st.FirstSeq, nil
}

func keepBytes(used uint64, limit, keep int64, full bool) uint64 {
	if limit <= 0 {
		return uint64(keep)
	}
	if full || used > uint64(limit)/2 {
		return 0
	}
	return uint64(min(keep, limit/4))
}
