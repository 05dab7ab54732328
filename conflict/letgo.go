package conflict

import (
	"encoding/binary"
	"strconv"

	"github.com/pgwaltz/pgwaltz/wal"
)

// letGo remembers which rows a Tangle has let go under keys that may have been taken.
type letGo struct {
	rows map[[16]byte][16]byte // digests of the contents by those of relation and key
	// more are the keys of which no contents are remembered: bits, four for each key.
	more []uint64
	// cut is how often a table was truncated since: what was let go before is gone.
	cut map[string]int
}

const (
	letGoRows = 1 << 20 // whose contents are remembered, in some 60 MB
	letGoBits = 1 << 28 // of 10 million further keys one in 2,000 others is taken for one
)

// letGoLeft stands for a row that has left its key: who is changed there next, and was not put there since, was there before.
var letGoLeft = [16]byte{1}

func (l *letGo) add(key string, ch *wal.Change) {
	k := l.name(key, ch)
	was, taken := l.rows[k]
	if taken && was != letGoLeft {
		l.rows[k] = [16]byte{} // two rows stand there, and which one leaves matters: none follows
		return
	}
	content, ok := Content(ch.Relation, ch.New)
	if ok && (taken || len(l.rows) < letGoRows) {
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

func (l *letGo) truncated(rel *wal.Relation) {
	if l.cut == nil {
		l.cut = map[string]int{}
	}
	l.cut[rel.String()]++
}

func (l *letGo) name(key string, ch *wal.Change) [16]byte {
	if n := l.cut[ch.Relation.String()]; n > 0 {
		key = strconv.Itoa(n) + "\x00" + key
	}
	return Digest([]byte(key))
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
	k := l.name(key, ch)
	was, ok := l.rows[k]
	if !ok {
		return !l.perhaps(k)
	}
	old, whole := Content(ch.Relation, ch.Old)
	if !ch.OldFull || !whole || Digest(old) != was {
		return false
	}
	l.rows[k] = letGoLeft
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
