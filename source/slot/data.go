package slot

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// copyData takes one message of the replication stream.
func (r *connection) copyData(ctx context.Context, d []byte) error {
	if len(d) == 0 {
		return fmt.Errorf("read slot %q: empty message", r.slot.cfg.Name)
	}
	switch d[0] {
	case pglogrepl.XLogDataByteID:
		if len(d) < 25 {
			return fmt.Errorf("read slot %q: short data message", r.slot.cfg.Name)
		}
		return r.data(ctx, wal.LSN(binary.BigEndian.Uint64(d[1:])), wal.LSN(binary.BigEndian.Uint64(d[9:])), d[25:])
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		if len(d) < 18 {
			return fmt.Errorf("read slot %q: short keepalive", r.slot.cfg.Name)
		}
		return r.keepalive(wal.LSN(binary.BigEndian.Uint64(d[1:])), d[17] != 0)
	}
	return fmt.Errorf("read slot %q: unknown stream message %q", r.slot.cfg.Name, d[0])
}

// data takes a piece of the decoded WAL that begins at at; end is the end of the server's WAL.
func (r *connection) data(ctx context.Context, at, end wal.LSN, body []byte) error {
	r.see(max(at, end), end)
	r.asked, r.leaving = 0, false
	tx, err := r.dec.Feed(at, body)
	if err != nil || tx == nil {
		return err
	}
	if err := failpoint.Hit("slot_after_read"); err != nil {
		return err
	}
	r.slot.echoes.Store(r.dec.Suppressed())
	r.slot.foreign.Store(r.dec.Foreign())
	r.pending.Transactions = append(r.pending.Transactions, tx)
	r.pending.bytes += int64(tx.Size())
	r.pending.Decoded = 0
	if !tx.More {
		r.see(tx.EndLSN, 0)
		r.pending.Decoded = tx.EndLSN
	}
	if r.pending.bytes >= 256<<10 || len(r.pending.Transactions) >= 2048 {
		return r.flush(ctx)
	}
	return nil
}

// keepalive takes the server's word of how far it is.
func (r *connection) keepalive(end wal.LSN, answer bool) error {
	r.see(end, end)
	if !r.dec.InTransaction() && end > r.pending.Decoded {
		r.pending.Decoded = end
	}
	if !answer {
		return nil
	}
	// A running server asks once per half wal_sender_timeout. One that shuts down asks in a
	// loop until we have confirmed all it sent, which we may not do.
	if now := time.Now(); now.Sub(r.askedAt) > time.Second {
		r.asked, r.askedAt = 0, now
	}
	r.asked++
	r.leaving = r.leaving || r.asked > 8
	return r.sendStatus(false)
}

func (r *connection) see(at, end wal.LSN) {
	if at > r.seen {
		r.seen = at
		r.slot.received.Store(uint64(at))
	}
	if uint64(end) > r.slot.walEnd.Load() {
		r.slot.walEnd.Store(uint64(end))
	}
}
