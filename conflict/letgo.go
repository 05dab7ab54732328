package conflict

import (
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// letGo remembers which rows a Tangle has let go under keys that may have been taken.
type letGo struct {
	rows map[[16]byte][16]byte // digests of the contents by those of relation and key
	// more are the keys of which no contents are remembered: bits, four for each key.
	more []uint64
}

const (
	letGoRows = 1 << 20 // whose contents are remembered, in some 60 MB
	letGoBits = 1 << 28 // of 10 million further keys one in 2,000 others is taken for one
)

func (l *letGo) add(key string, ch *wal.Change) {
	k := Digest([]byte(key))
	content, ok := Content(ch.Relation, ch.New)
	if ok && len(l.rows) < letGoRows {
		l.rows[k] = Digest(content)
		return
	}
	if l.more == nil {
		l.more = make([]uint64, letGoBits/64)
	}
	for _, bit := range bits(k) {
		l.more[bit/64] |= 1 << (bit % 64)
	}
}

func bits(k [16]byte) (b [4]uint32) {
	for i := range b {
		b[i] = binary.LittleEndian.Uint32(k[4*i:]) % letGoBits
	}
	return b
}

// follows reports whether an update or a delete means the row that was let go under its key, or one under
// another key.
func (l *letGo) follows(key string, ch *wal.Change) bool {
	k := Digest([]byte(key))
	was, ok := l.rows[k]
	if !ok {
		return !l.perhaps(k)
	}
	old, whole := Content(ch.Relation, ch.Old)
	if !ch.OldFull || !whole || Digest(old) != was {
		return false
	}
	delete(l.rows, k)
	if ch.Op == wal.Update {
		now := *ch
		now.New = ch.New.Filled(ch.Old)
		l.add(key, &now)
	}
	return true
}

func (l *letGo) perhaps(k [16]byte) bool {
	if l.more == nil {
		return false
	}
	for _, bit := range bits(k) {
		if l.more[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}
