package sidecar

import (
	"context"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
)

// A region that is switched by itself may be told by its peer to leave its slot (fallback.AskNative). The peer writes that down first and then looks
// whether the slot is read. So nothing is confirmed by a session that reads the slot until the region's row was read behind its beginning: either
// the row says that the slot is to be left, or the peer sees that it is read, and waits. What is confirmed is never beyond what the
// peer takes over from.

// vouched is the session of the slot that may confirm: its process at the server.
type vouched struct {
	reads atomic.Uint32 // of the newest session that reads the slot
	may   atomic.Uint32 // of the one behind whose beginning the region was in mode stream
}

// may reports whether what the slot's session was given may be confirmed.
func (s *Sidecar) mayConfirm() bool {
	return !s.cfg.Fallback.On() || s.vouched.may.Load() != 0 && s.vouched.may.Load() == s.vouched.reads.Load()
}

// vouch looks at the region's mode, once the session of the slot is seen at work.
func (s *Sidecar) vouch(ctx context.Context, c *pgx.Conn, slot *pg.Slot) error {
	if s.mayConfirm() || slot == nil || !slot.Active || uint32(slot.ActivePID) != s.vouched.reads.Load() {
		return nil
	}
	row, err := fallback.Load(ctx, c, s.cfg.Region)
	if err == nil && (row == nil || row.Mode == config.ModeStream && row.Settled) {
		s.vouched.may.Store(uint32(slot.ActivePID))
	}
	return err
}

// Linked reports whether the region's broker works and the peer's process answers by it.
func (s *Sidecar) Linked(peer string) bool {
	v := s.view.Load()
	return v != nil && v.broker != nil && v.broker.PeerReachable(peer)
}

// Register adds metrics to those that the sidecar serves; before Run.
func (s *Sidecar) Register(c prometheus.Collector) { s.registry.MustRegister(c) }
