package wire

import (
	"encoding/binary"
	"math"
)

// reader walks a payload. The first error sticks; after it every read returns zero, so that
// callers check once per element.
type reader struct {
	b   []byte
	i   int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformed(format, args...)
		r.i = len(r.b)
	}
}

func (r *reader) left() int { return len(r.b) - r.i }

func (r *reader) byte() byte {
	if r.i >= len(r.b) {
		r.fail("payload ends early")
		return 0
	}
	c := r.b[r.i]
	r.i++
	return c
}

// take returns the next n bytes, without room to append.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b)-r.i {
		r.fail("payload ends early")
		return nil
	}
	b := r.b[r.i : r.i+n : r.i+n]
	r.i += n
	return b
}

func (r *reader) uint64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return be.Uint64(b)
}

func (r *reader) uvarint() uint64 {
	if r.i < len(r.b) && r.b[r.i] < 0x80 {
		r.i++
		return uint64(r.b[r.i-1])
	}
	v, n := binary.Uvarint(r.b[r.i:])
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.i += n
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b[r.i:])
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.i += n
	return v
}

func (r *reader) uint32(what string) uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.fail("%s out of range", what)
		return 0
	}
	return uint32(v)
}

// count reads a number of elements that take at least size bytes each, so that a forged
// count cannot ask for more memory than the payload backs.
func (r *reader) count(what string, size int) int {
	v := r.uvarint()
	if r.err == nil && v > uint64(r.left()/size) {
		r.fail("%s count %d exceeds the payload", what, v)
		return 0
	}
	return int(v)
}

// text reads a length and that many bytes, which alias the payload.
func (r *reader) text() []byte { return r.take(r.count("byte", 1)) }
