package sidecar

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/guard"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/wal"
)

// retryParked tries parked changes again, those of each origin and of this region itself on
// a session of their own.
func (s *Sidecar) retryParked(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	tries := map[string]*inboundState{}
	for origin, in := range s.in {
		tries[origin] = in
	}
	// Changes of a region that was removed from the peers wait for the same causes as before.
	for _, origin := range s.parked.Origins() {
		if tries[origin] == nil && origin != s.cfg.Region {
			tries[origin] = &inboundState{origin: origin}
		}
	}
	for origin, in := range tries {
		cfg := s.applyConfig(origin)
		cfg.Connect, cfg.Marker = s.connectRetry(), s.caps.token
		r := apply.NewRetrier(cfg, func(t audit.Tally) { s.noteConflicts(in, t) })
		g.Go(func() error { return guard.Run("trying parked changes again", func() error { return r.Run(ctx) }) })
	}
	if s.cfg.Publishes() {
		cfg := s.selfConfig()
		cfg.Connect, cfg.Marker = s.connectRetry(), s.caps.token
		own := &inboundState{origin: s.cfg.Region}
		r := apply.NewRetrier(cfg, func(t audit.Tally) { s.noteConflicts(own, t) })
		g.Go(func() error { return guard.Run("trying parked changes again", func() error { return r.Run(ctx) }) })
	}
	g.Go(func() error { return s.watchParked(ctx) })
	return g.Wait()
}

// suspectsOf is what is remembered of sessions that ended while changes of origin were applied.
func (s *Sidecar) suspectsOf(origin string) *apply.Suspects {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspects[origin] == nil {
		s.suspects[origin] = &apply.Suspects{}
	}
	return s.suspects[origin]
}

// connectRetry opens an apply session without a replication origin: the session of the pipe
// has it, and it belongs to one at a time.
func (s *Sidecar) connectRetry() func(context.Context) (*pgx.Conn, error) {
	return s.connectApply(s.cfg.Region)
}

// parkedElse is what waits of regions that the status names in no direction: those that were removed from the peers, and
// those of which nothing comes, or goes, by this region's direction any more.
func (s *Sidecar) parkedElse() (out []status.Waiting) {
	for _, origin := range s.parked.Origins() {
		if origin == s.cfg.Region && s.cfg.Publishes() || s.in[origin] != nil && s.cfg.Applies() {
			continue
		}
		why := "region " + origin + " is no peer any more"
		if origin == s.cfg.Region || s.in[origin] != nil {
			why = "direction is " + string(s.cfg.Direction)
		}
		n := s.parked.Count(origin)
		out = append(out, status.Waiting{Origin: origin, Parked: n, Reason: parkedText(n) + " (" + why + ")"})
	}
	return out
}

// parkedSince is since when this region has changes set aside; 0: there are none. It is known before
// the acknowledgement that covers such a change.
func (s *Sidecar) parkedSince() wal.Micros {
	at := wal.Micros(s.parkedAt.Load())
	if at == 0 && s.parked.Waits() {
		return wal.MicrosOf(time.Now())
	}
	return at
}

// parkedEver is what parkedSince says before it has looked.
const parkedEver = 1

// watchParked looks for changes that an operator wants to be tried again, and for the one that waits
// longest.
func (s *Sidecar) watchParked(ctx context.Context) error {
	for {
		var wanted bool
		err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
			if wanted, err = parked.AnyWanted(ctx, c); err != nil {
				return err
			}
			at, err := parked.Since(ctx, c)
			if err == nil {
				s.parkedAt.Store(int64(at))
			}
			return err
		})
		if err != nil {
			return err
		}
		s.parked.Want(wanted)
		if err := pause.For(ctx, time.Second); err != nil {
			return err
		}
	}
}
