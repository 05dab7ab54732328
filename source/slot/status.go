package slot

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
)

// sendStatus writes a standby status update: all three positions, clamped to what this
// server showed and never going back. The message is built here because a zero flush
// position, the answer to a server that shuts down, must stay zero.
func (r *connection) sendStatus(reply bool) error {
	if err := failpoint.Hit("slot_before_status"); err != nil {
		return err
	}
	pos := r.slot.cfg.Confirm()
	if pos > r.seen {
		pos = max(r.lastPos, min(pos, r.seen))
	}
	pos = max(pos, r.lastPos)
	r.lastPos = pos
	flush := pos
	if r.leaving {
		flush = 0
	}
	buf := make([]byte, 0, 39)
	buf = append(buf, 'd', 0, 0, 0, 38, pglogrepl.StandbyStatusUpdateByteID)
	buf = binary.BigEndian.AppendUint64(buf, uint64(max(r.seen, pos)))
	buf = binary.BigEndian.AppendUint64(buf, uint64(flush))
	buf = binary.BigEndian.AppendUint64(buf, uint64(flush))
	buf = binary.BigEndian.AppendUint64(buf, uint64(time.Now().UnixMicro()-946684800*1000000))
	if reply {
		buf = append(buf, 1)
	} else {
		buf = append(buf, 0)
	}
	nc := r.conn.Conn()
	nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write(buf); err != nil {
		return fmt.Errorf("confirm slot %q at %s: %w", r.slot.cfg.Name, pos, err)
	}
	r.slot.flushed.Store(uint64(pos))
	return failpoint.Hit("slot_after_status")
}
