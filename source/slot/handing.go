package slot

import (
	"context"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// flush hands the pending item on. While the queue is full it keeps the status going and reads
// nothing: the connection stays, and the server need not decode the same WAL again. A server
// that shuts down ends the sidecar's other sessions first, and with them Run's context. What
// is in hand at an orderly stop is left to the next start, and all that follows with it.
func (r *connection) flush(ctx context.Context) error {
	if r.spent {
		r.pending = Item{}
		return nil
	}
	if len(r.pending.Transactions) == 0 && r.pending.Decoded <= wal.LSN(r.slot.decoded.Load()) {
		return nil
	}
	it := r.pending
	r.pending = Item{}
	var timer *time.Timer
	for !r.hand(it) {
		if timer == nil {
			timer = time.NewTimer(r.slot.cfg.StatusInterval)
			defer timer.Stop()
		} else {
			timer.Reset(r.slot.cfg.StatusInterval)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.slot.freed:
		case <-timer.C:
			if r.slot.draining.Load() {
				r.spent = true
				return nil
			}
			if err := r.sendStatus(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// hand puts an item into the queue if there is room.
func (r *connection) hand(it Item) bool {
	if q := r.slot.queued.Load(); q != 0 && q+it.bytes > r.slot.cfg.QueueBytes {
		return false
	}
	select {
	case r.slot.out <- it:
	default:
		return false
	}
	r.slot.queued.Add(it.bytes)
	if it.Decoded != 0 {
		r.slot.decoded.Store(uint64(it.Decoded))
	}
	return true
}
