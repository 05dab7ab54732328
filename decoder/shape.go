package decoder

import (
	"bytes"
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// pglogrepl's parsers trust the lengths and counts they read: a short message makes them panic,
// a large count allocate. The functions here walk a message first and let only well-formed
// ones through. Trailing bytes are refused too: they would be something we do not understand.

// walker steps over the fields of a message. After a step beyond the end it stays bad.
type walker struct {
	b   []byte
	bad bool
}

func (w *walker) next(n uint64) []byte {
	if w.bad || n > uint64(len(w.b)) {
		w.bad = true
		return nil
	}
	field := w.b[:n]
	w.b = w.b[n:]
	return field
}

func (w *walker) uint8() byte {
	if b := w.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *walker) uint16() uint64 {
	if b := w.next(2); b != nil {
		return uint64(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (w *walker) uint32() uint64 {
	if b := w.next(4); b != nil {
		return uint64(binary.BigEndian.Uint32(b))
	}
	return 0
}

// cstring steps over a string and its terminating zero.
func (w *walker) cstring() {
	end := bytes.IndexByte(w.b, 0)
	if end < 0 {
		w.bad = true
		return
	}
	w.next(uint64(end) + 1)
}

func (w *walker) finish() error {
	if w.bad {
		return malformed("it ends inside a field")
	}
	if len(w.b) > 0 {
		return malformed("%d bytes behind the last field", len(w.b))
	}
	return nil
}

// checkBegin: commit position, commit time, xid.
func checkBegin(b []byte) error { return checkSize(b, 8+8+4) }

// checkCommit: flags, commit position, end position, commit time.
func checkCommit(b []byte) error { return checkSize(b, 1+8+8+8) }

func checkSize(b []byte, want int) error {
	if len(b) != want {
		return malformed("%d bytes, want %d", len(b), want)
	}
	return nil
}

// checkOrigin: commit position at the origin, name.
func checkOrigin(b []byte) error {
	w := walker{b: b}
	w.next(8)
	w.cstring()
	return w.finish()
}

// checkRelation: oid, schema, name, identity, count, and for each column flags, name, type oid
// and modifier.
func checkRelation(b []byte) error {
	w := walker{b: b}
	w.next(4)
	w.cstring()
	w.cstring()
	switch id := wal.Identity(w.uint8()); id {
	case wal.IdentityDefault, wal.IdentityNothing, wal.IdentityFull, wal.IdentityIndex:
	default:
		if !w.bad {
			return malformed("replica identity %q", byte(id))
		}
	}
	for n := w.uint16(); n > 0 && !w.bad; n-- {
		w.next(1)
		w.cstring()
		w.next(4 + 4)
	}
	return w.finish()
}

// checkType: oid, schema, name.
func checkType(b []byte) error {
	w := walker{b: b}
	w.next(4)
	w.cstring()
	w.cstring()
	return w.finish()
}

// checkTruncate: count, options, oids.
func checkTruncate(b []byte) error {
	w := walker{b: b}
	n := w.uint32()
	w.next(1)
	w.next(4 * n)
	if n == 0 && !w.bad {
		return malformed("it names no relation")
	}
	return w.finish()
}

// checkMessage: flags, position, prefix, length, content.
func checkMessage(b []byte) error {
	w := walker{b: b}
	if flags := w.uint8(); flags > 1 {
		return malformed("flags %#x", flags)
	}
	w.next(8)
	w.cstring()
	w.next(w.uint32())
	return w.finish()
}
