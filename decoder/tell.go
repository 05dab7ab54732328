package decoder

import (
	"bytes"
	"iter"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A tell is what an apply transaction has to say to the other regions: repairs and notices,
// encoded by whoever reads them again. It stands in the transaction's own WAL as
// transactional logical messages, so it is as durable as the rows, comes out of the slot in
// commit order, and comes again whenever the WAL is decoded again.
//
// The content of each message begins with the marker that only our own apply sessions know
// (anybody in the database may write messages), goes on with one byte that says whether more
// messages follow for the same tell, and ends with a piece of it.

// TellPrefix is the prefix of these messages.
const TellPrefix = "pgwaltz.tell"

const (
	tellMore = 'm'
	tellLast = 'l'

	// maxTell is the size of the pieces: the server holds one message as a whole.
	maxTell = 1 << 20
)

// SplitTell yields the contents of the messages that carry a tell, in order. They
// share no memory with tell, nor with each other.
func SplitTell(marker, tell []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		splitTell(marker, tell, yield)
	}
}

func splitTell(marker, tell []byte, yield func([]byte) bool) {
	for first := true; first || len(tell) > 0; first = false {
		piece := tell[:min(maxTell, len(tell))]
		tell = tell[len(piece):]
		kind := byte(tellMore)
		if len(tell) == 0 {
			kind = tellLast
		}
		m := make([]byte, 0, len(marker)+1+len(piece))
		m = append(append(m, marker...), kind)
		if !yield(append(m, piece...)) {
			return
		}
	}
}

// onTell takes a piece of a tell. Applied transactions are suppressed, what they tell is not.
func (d *Decoder) onTell(m *pglogrepl.LogicalDecodingMessage) {
	rest, ours := bytes.CutPrefix(m.Content, d.cfg.Marker)
	if !ours || len(d.cfg.Marker) == 0 || len(rest) == 0 || (rest[0] != tellMore && rest[0] != tellLast) {
		d.foreign++
		return
	}
	d.tx.tell = append(d.tx.tell, rest[1:]...)
	if rest[0] == tellMore {
		return
	}
	msg := wal.Message{Transactional: true, LSN: wal.LSN(m.LSN), Prefix: TellPrefix, Content: d.tx.tell}
	d.tx.tell = nil
	d.tx.messages = append(d.tx.messages, msg)
	d.tx.size += messageOverhead + len(msg.Content)
}

// Foreign is the number of messages with a prefix of ours that were not written by our own
// apply sessions, since New. They are ignored.
func (d *Decoder) Foreign() uint64 { return d.foreign }
