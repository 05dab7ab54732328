package apply

import (
	"encoding/binary"
	"slices"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// array builds one array parameter in PostgreSQL's binary array format (array_recv):
// dimensions, null flag, element oid, length, lower bound, then length and bytes of each
// element. The element bytes are those that pgoutput sent, untouched.
type array struct {
	buf   []byte
	n     uint32
	nulls bool
	oid   uint32
}

const arrayHeader = 20

// reset starts a new array of element type oid, keeping the buffer.
func (a *array) reset(oid uint32) {
	if cap(a.buf) < arrayHeader {
		a.buf = make([]byte, arrayHeader, 4096)
	}
	a.buf = a.buf[:arrayHeader]
	a.n, a.nulls, a.oid = 0, false, oid
}

// room makes place for n elements of so many bytes in all: a large array is allocated once.
func (a *array) room(n, bytes int) { a.buf = slices.Grow(a.buf, 4*n+bytes) }

func (a *array) null() {
	a.nulls = true
	a.n++
	a.buf = append(a.buf, 0xff, 0xff, 0xff, 0xff)
}

func (a *array) bytes(b []byte) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
}

func (a *array) int8(v int64) {
	a.n++
	a.buf = append(a.buf, 0, 0, 0, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(v))
}

// value appends a tuple value, or its digest; an unchanged value must not come here.
func (a *array) value(v wal.Value) {
	if v.Kind == wal.Text || v.Kind == wal.Binary || v.Kind == wal.Digest {
		a.bytes(v.Bytes)
		return
	}
	a.null()
}

// pgEpoch is 2000-01-01 in microseconds since 1970, the zero of PostgreSQL's timestamps.
const pgEpoch = 946684800 * 1000000

// micros appends an instant as timestamptz.
func (a *array) micros(m wal.Micros) {
	switch m {
	case wal.MinMicros, wal.MaxMicros:
		a.int8(int64(m)) // -infinity and infinity are the ends of the range there too
	default:
		a.int8(int64(m) - pgEpoch)
	}
}

// param finishes the header and returns the parameter. It stays valid until reset.
func (a *array) param() []byte {
	h := a.buf[:arrayHeader]
	be := binary.BigEndian
	if a.n == 0 {
		be.PutUint32(h[0:], 0)
		be.PutUint32(h[4:], 0)
		be.PutUint32(h[8:], a.oid)
		return a.buf[:12]
	}
	be.PutUint32(h[0:], 1)
	flags := uint32(0)
	if a.nulls {
		flags = 1
	}
	be.PutUint32(h[4:], flags)
	be.PutUint32(h[8:], a.oid)
	be.PutUint32(h[12:], a.n)
	be.PutUint32(h[16:], 1)
	return a.buf
}

// microsOf reads a binary timestamptz.
func microsOf(b []byte) wal.Micros {
	return conflict.TimeBinary(b)
}

func int8Of(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }
