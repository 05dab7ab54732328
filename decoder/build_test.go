package decoder

import (
	"encoding/binary"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The functions here write pgoutput messages the way the server does.

var be = binary.BigEndian

func cstr(b []byte, s string) []byte { return append(append(b, s...), 0) }

func begin(xid uint32, commit wal.LSN) []byte {
	b := be.AppendUint64([]byte{'B'}, uint64(commit))
	b = be.AppendUint64(b, 1_000_000)
	return be.AppendUint32(b, xid)
}

func commit(lsn, end wal.LSN) []byte {
	b := be.AppendUint64([]byte{'C', 0}, uint64(lsn))
	b = be.AppendUint64(b, uint64(end))
	return be.AppendUint64(b, 1_000_000)
}

func origin(name string) []byte { return cstr(be.AppendUint64([]byte{'O'}, 77), name) }

func typ(oid uint32, schema, name string) []byte {
	return cstr(cstr(be.AppendUint32([]byte{'Y'}, oid), schema), name)
}

type col struct {
	name string
	oid  uint32
	key  bool
}

func relation(oid uint32, schema, name string, id wal.Identity, cols ...col) []byte {
	b := cstr(cstr(be.AppendUint32([]byte{'R'}, oid), schema), name)
	b = be.AppendUint16(append(b, byte(id)), uint16(len(cols)))
	for _, c := range cols {
		flags := byte(0)
		if c.key {
			flags = 1
		}
		b = be.AppendUint32(cstr(append(b, flags), c.name), c.oid)
		b = be.AppendUint32(b, ^uint32(0))
	}
	return b
}

// tup writes a TupleData: nil is NULL, true unchanged, a string text, bytes binary.
func tup(vals ...any) []byte {
	b := be.AppendUint16(nil, uint16(len(vals)))
	for _, v := range vals {
		switch v := v.(type) {
		case nil:
			b = append(b, 'n')
		case bool:
			b = append(b, 'u')
		case string:
			b = append(be.AppendUint32(append(b, 't'), uint32(len(v))), v...)
		case []byte:
			b = append(be.AppendUint32(append(b, 'b'), uint32(len(v))), v...)
		}
	}
	return b
}

func row(op byte, oid uint32, parts ...[]byte) []byte {
	b := be.AppendUint32([]byte{op}, oid)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func insert(oid uint32, vals ...any) []byte {
	return row('I', oid, []byte("N"), tup(vals...))
}

func truncate(oids ...uint32) []byte {
	b := append(be.AppendUint32([]byte{'T'}, uint32(len(oids))), 0)
	for _, o := range oids {
		b = be.AppendUint32(b, o)
	}
	return b
}

func message(transactional bool, prefix, content string) []byte {
	b := []byte{'M', 0}
	if transactional {
		b[1] = 1
	}
	b = cstr(be.AppendUint64(b, 99), prefix)
	return append(be.AppendUint32(b, uint32(len(content))), content...)
}

// users is relation 16400, public.users(id int8 key, name text, bio text) with identity id.
func users(id wal.Identity) []byte {
	full := id == wal.IdentityFull
	return relation(16400, "public", "users", id, col{"id", 20, id != wal.IdentityNothing}, col{"name", 25, full}, col{"bio", 25, full})
}

// feed gives msgs to d and returns the transactions that came out.
func feed(t *testing.T, d *Decoder, msgs ...[]byte) []*wal.Transaction {
	t.Helper()
	var out []*wal.Transaction
	for i, m := range msgs {
		tx, err := d.Feed(wal.LSN(i), m)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if tx != nil {
			out = append(out, tx)
		}
	}
	return out
}

// feedOne is feed where exactly one transaction must come out.
func feedOne(t *testing.T, d *Decoder, msgs ...[]byte) *wal.Transaction {
	t.Helper()
	out := feed(t, d, msgs...)
	if len(out) != 1 {
		t.Fatalf("%d transactions came out, want 1", len(out))
	}
	return out[0]
}
