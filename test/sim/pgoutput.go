package sim

import (
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The messages of pgoutput, protocol version 1, as a server writes them.

var be = binary.BigEndian

// epochMicros is 2000-01-01, where the protocol's times begin.
const epochMicros = 946_684_800_000_000

func cstring(b []byte, s string) []byte { return append(append(b, s...), 0) }

func beginMsg(b []byte, tx *walTx) []byte {
	b = be.AppendUint64(append(b, 'B'), uint64(tx.commit))
	b = be.AppendUint64(b, uint64(int64(tx.at)-epochMicros))
	return be.AppendUint32(b, tx.xid)
}

func commitMsg(b []byte, tx *walTx) []byte {
	b = be.AppendUint64(append(b, 'C', 0), uint64(tx.commit))
	b = be.AppendUint64(b, uint64(tx.end))
	return be.AppendUint64(b, uint64(int64(tx.at)-epochMicros))
}

func originMsg(b []byte, name string) []byte {
	return cstring(be.AppendUint64(append(b, 'O'), 1), name)
}

func markerMsg(b []byte, at wal.LSN, content string) []byte {
	return messageMsg(b, at, "pgwaltz.apply", []byte(content))
}

func messageMsg(b []byte, at wal.LSN, prefix string, content []byte) []byte {
	b = cstring(be.AppendUint64(append(b, 'M', 1), uint64(at)), prefix)
	return append(be.AppendUint32(b, uint32(len(content))), content...)
}

func relationMsg(b []byte, t *table) []byte {
	b = cstring(cstring(be.AppendUint32(append(b, 'R'), t.oid), t.rel.Schema), t.rel.Name)
	b = be.AppendUint16(append(b, byte(t.rel.Identity)), uint16(len(t.rel.Columns)))
	for i := range t.rel.Columns {
		c := &t.rel.Columns[i]
		flags := byte(0)
		if c.Key {
			flags = 1
		}
		b = be.AppendUint32(cstring(append(b, flags), c.Name), c.OID)
		b = be.AppendUint32(b, uint32(c.TypeMod))
	}
	return b
}

func tupleData(b []byte, t wal.Tuple) []byte {
	b = be.AppendUint16(b, uint16(len(t)))
	for i := range t {
		b = append(b, byte(t[i].Kind))
		if t[i].Kind == wal.Text {
			b = be.AppendUint32(b, uint32(len(t[i].Bytes)))
			b = append(b, t[i].Bytes...)
		}
	}
	return b
}

func changeMsg(b []byte, t *table, c *walChange) []byte {
	b = be.AppendUint32(append(b, byte(c.op)), t.oid)
	if c.op != wal.Insert && c.old != nil {
		mark := byte('K')
		if c.full {
			mark = 'O'
		}
		b = tupleData(append(b, mark), c.old)
	}
	if c.op != wal.Delete {
		b = tupleData(append(b, 'N'), c.new)
	}
	return b
}
