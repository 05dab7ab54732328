package conflict

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// EventID names a conflict: the pair of entries that met, in either role. Both regions
// compute the same id for the same pair, and so does a redelivery, which is what makes the
// audit log's unique event_id work. It is laid out as a UUID of version 8.
//
// key is the text of wal.Relation.AppendKey. The contents of live sides must be given, over the
// columns that both regions have; without them two conflicts of equal stamps share an id.
func EventID(rel wal.RelationName, key string, winner, loser Side) [16]byte {
	a, b := sideDigest(winner), sideDigest(loser)
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := make([]byte, 0, 128)
	for _, s := range [...]string{rel.Schema, rel.Name, key} {
		h = binary.BigEndian.AppendUint32(h, uint32(len(s)))
		h = append(h, s...)
	}
	h = append(append(h, a[:]...), b[:]...)
	sum := sha256.Sum256(h)
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

func sideDigest(s Side) [32]byte {
	b := make([]byte, 0, 64)
	switch {
	case !s.Known:
		return sha256.Sum256(append(b, 'n'))
	case s.Alive:
		b = append(b, 'l')
	default:
		b = append(b, 'd')
	}
	b = binary.BigEndian.AppendUint32(b, s.Stamp.Generation)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Stamp.Version))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Stamp.UpdatedAt))
	if s.Alive {
		d := Digest(s.Content)
		b = append(b, d[:]...)
	}
	return sha256.Sum256(b)
}
