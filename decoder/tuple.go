package decoder

import (
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// tuple cuts a TupleData of rel out of b, which must be the slab's: the values point into it.
// It returns what follows.
//
//	int16 columns, then for each: 'n' | 'u' | ('t' | 'b') int32 length, bytes
func (d *Decoder) tuple(rel *wal.Relation, b []byte) (wal.Tuple, []byte, error) {
	if len(b) < 2 {
		return nil, nil, malformed("it ends inside a tuple")
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if sent := rel.Sent(); n != sent {
		return nil, nil, malformed("tuple of %d columns for %s, which was described with %d", n, rel, sent)
	}
	vals := d.slab.values(len(rel.Columns))
	for i := n; i < len(vals); i++ {
		vals[i] = wal.Value{Kind: wal.Null}
	}
	for i := range vals[:n] {
		if len(b) == 0 {
			return nil, nil, malformed("it ends before column %d of %s", i, rel)
		}
		kind := wal.Kind(b[0])
		b = b[1:]
		switch kind {
		case wal.Null, wal.Unchanged:
			vals[i].Kind = kind
		case wal.Text, wal.Binary:
			if len(b) < 4 {
				return nil, nil, malformed("it ends inside the length of column %d of %s", i, rel)
			}
			// Compared unsigned and in 64 bits, a negative length is too large as well.
			size := uint64(binary.BigEndian.Uint32(b))
			b = b[4:]
			if size > uint64(len(b)) {
				return nil, nil, malformed("column %d of %s has length %d, %d bytes are left", i, rel, size, len(b))
			}
			vals[i] = wal.Value{Kind: kind, Bytes: b[:size:size]}
			b = b[size:]
		default:
			return nil, nil, malformed("column %d of %s is of kind %q", i, rel, byte(kind))
		}
	}
	return vals, b, nil
}
