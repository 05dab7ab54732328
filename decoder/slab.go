package decoder

import "github.com/pgwaltz/pgwaltz/wal"

const (
	byteChunk   = 64 << 10 // bytes
	valueChunk  = 512      // wal.Values
	changeChunk = 64       // wal.Changes

	// largeRow is the message size in bytes from which a row does not share its memory:
	// whoever holds a small transaction must not hold its neighbour's megabytes. With it
	// a chunk of values keeps at most valueChunk*largeRow = 2 MiB of neighbours alive, and
	// one of changes less.
	largeRow = 4 << 10
)

// slab hands out memory for rows in chunks that neighbouring transactions share. It never
// takes anything back; a chunk lives as long as a transaction that points into it.
type slab struct {
	bytes   []byte
	vals    []wal.Value
	changes changeSlab
	alone   bool // the part being gathered shares nothing, it holds a large row
}

// keep copies b, the bytes of one row message.
func (s *slab) keep(b []byte) []byte {
	if len(b) >= largeRow {
		if !s.alone {
			s.alone = true
			s.vals = nil
			s.changes.move(1)
		}
		return append([]byte(nil), b...)
	}
	if cap(s.bytes)-len(s.bytes) < len(b) {
		s.bytes = make([]byte, 0, byteChunk)
	}
	n := len(s.bytes)
	s.bytes = append(s.bytes, b...)
	return s.bytes[n:len(s.bytes):len(s.bytes)]
}

// values returns n zero values. It is never nil: a row of a table without columns is a row.
func (s *slab) values(n int) []wal.Value {
	if n == 0 {
		return []wal.Value{}
	}
	if cap(s.vals)-len(s.vals) < n {
		size := valueChunk
		if s.alone {
			size = 4 * n
		}
		s.vals = make([]wal.Value, 0, max(n, size))
	}
	at := len(s.vals)
	s.vals = s.vals[:at+n]
	return s.vals[at : at+n : at+n]
}

// add appends a change to the part being gathered.
func (s *slab) add(c wal.Change) {
	if len(s.changes.buf) == cap(s.changes.buf) {
		size := changeChunk
		if s.alone {
			size = 4
		}
		s.changes.move(max(size, 2*(len(s.changes.buf)-s.changes.start)))
	}
	s.changes.buf = append(s.changes.buf, c)
}

// cut ends the part being gathered and returns its changes, nil if there are none. With more,
// the next part of the same transaction is expected to be of the same length.
func (s *slab) cut(more bool) []wal.Change {
	c := s.changes.cut()
	switch {
	case more:
		s.changes = changeSlab{buf: make([]wal.Change, 0, len(c))}
	case s.alone || cap(s.changes.buf) > changeChunk:
		s.changes = changeSlab{}
	}
	if s.alone {
		s.alone = false
		s.vals = nil
	}
	return c
}

// changeSlab keeps the changes of the part being gathered in one piece, at the end of a chunk.
type changeSlab struct {
	buf   []wal.Change
	start int // where the part begins
}

// move takes the part to a new chunk of at least the given capacity.
func (s *changeSlab) move(size int) {
	part := s.buf[s.start:]
	buf := append(make([]wal.Change, 0, max(size, len(part)+1)), part...)
	clear(part) // the old chunk belongs to earlier transactions and must not hold our rows
	s.buf, s.start = buf, 0
}

func (s *changeSlab) cut() []wal.Change {
	n := len(s.buf)
	part := s.buf[s.start:n:n]
	s.start = n
	if len(part) == 0 {
		return nil
	}
	return part
}

// part is the part being gathered.
func (s *changeSlab) part() []wal.Change { return s.buf[s.start:] }

// drop forgets the changes of the part.
func (s *changeSlab) drop() {
	clear(s.buf[s.start:])
	s.buf = s.buf[:s.start]
}
