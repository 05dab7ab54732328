package wire

import (
	"errors"
	"math/rand"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func known(err error) bool {
	for _, want := range []error{ErrNotFrame, ErrVersion, ErrKind, ErrCRC, ErrTruncated, ErrTooLarge, ErrMalformed, ErrFragment} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// FuzzParse feeds messages, as they are and with their checksums repaired, so that the
// fuzzer gets past them.
func FuzzParse(f *testing.F) {
	cfg := sampleConfig()
	f.Add(sampleFrame(f, cfg).Data)
	cfg.Compress = true
	f.Add(sampleFrame(f, cfg).Data)
	f.Add([]byte("PGWZ\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		Describe(data)
		try := func(data []byte) {
			raw, err := Parse(data)
			if err != nil {
				if !known(err) {
					t.Fatalf("untyped error: %v", err)
				}
				return
			}
			if len(raw.Payload) > MaxPayload {
				t.Fatalf("payload of %d bytes", len(raw.Payload))
			}
			if _, err := NewAssembler(1<<20, nil).Add(raw); err != nil && !known(err) {
				t.Fatalf("untyped error: %v", err)
			}
		}
		try(data)
		if len(data) >= fixedLen {
			h, sig := uint64(be.Uint32(data[offHeaderLen:])), uint64(be.Uint16(data[offSigLen:]))
			if h >= fixedLen && h < 1000 && h+sig <= uint64(len(data)) {
				try(reseal(append([]byte(nil), data...)))
			}
		}
	})
}

// FuzzParsePacket: whatever parses can be encoded again and then says the same.
func FuzzParsePacket(f *testing.F) {
	var p builder
	rel := users()
	for xid := range 3 {
		if err := p.add(userUpdate(rel, 7), 1<<20); err != nil {
			f.Fatal(xid, err)
		}
	}
	f.Add(append([]byte(nil), p.finish()...))
	f.Add([]byte{})
	for seed := range int64(16) {
		r := rand.New(rand.NewSource(seed))
		p.reset()
		if err := p.add(randomTransaction(r, []*wal.Relation{randomRelation(r), rel}), 1<<20); err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte(nil), p.finish()...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		packet, err := ParsePacket(data)
		if err != nil {
			if !known(err) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		var p builder
		for _, tx := range packet.Transactions {
			if err := p.add(tx, 1<<30); err != nil {
				t.Fatalf("encode what was parsed: %v", err)
			}
		}
		again, err := ParsePacket(p.finish())
		if err != nil {
			t.Fatalf("parse what was encoded: %v", err)
		}
		same(t, again.Transactions, packet.Transactions)
	})
}
