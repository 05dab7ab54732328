package decoder

import (
	"bytes"
	"strings"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// onMessage takes a logical message: the apply marker suppresses its transaction, what our own
// apply sessions tell is kept in any case, others of ours are kept unless their transaction is
// suppressed, those of other programs are dropped.
func (d *Decoder) onMessage(body []byte) error {
	if err := checkMessage(body); err != nil {
		return err
	}
	var m pglogrepl.LogicalDecodingMessage
	if err := m.Decode(body); err != nil {
		return malformed("%v", err)
	}
	if m.Transactional && !d.tx.open {
		return outOfOrder("no transaction is open")
	}
	if m.Transactional && d.isMarker(&m) {
		return d.suppress(MarkerOrigin)
	}
	if m.Transactional && m.Prefix == TellPrefix {
		d.onTell(&m)
		return nil
	}
	if !strings.HasPrefix(m.Prefix, ownPrefix) {
		return nil
	}
	msg := wal.Message{
		Transactional: m.Transactional,
		LSN:           wal.LSN(m.LSN),
		Prefix:        m.Prefix,
		Content:       bytes.Clone(m.Content),
	}
	switch {
	case !m.Transactional:
		if d.cfg.OnMessage != nil {
			d.cfg.OnMessage(msg)
		}
	case !d.tx.suppressed:
		d.tx.messages = append(d.tx.messages, msg)
		d.tx.size += messageOverhead + len(msg.Content)
	}
	return nil
}

func (d *Decoder) isMarker(m *pglogrepl.LogicalDecodingMessage) bool {
	return m.Prefix == d.cfg.MarkerPrefix && (len(d.cfg.Marker) == 0 || bytes.Equal(m.Content, d.cfg.Marker))
}
