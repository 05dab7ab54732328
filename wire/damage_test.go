package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math/rand"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/klauspost/compress/s2"

	"github.com/pgwaltz/pgwaltz/wal"
)

func sampleFrame(t testing.TB, cfg EncoderConfig) Frame {
	t.Helper()
	e := NewEncoder(cfg, Position{Incarnation: 2, EndLSN: 0x16B3000})
	rel := users()
	mustAdd(t, e, userUpdate(rel, 1), userUpdate(rel, 2))
	return e.Cut(Data, 0, 0x16B4000, sampleTime)[0]
}

// reseal makes a forged frame's checksum and chain fit its bytes again.
func reseal(b []byte) []byte {
	body := len(b) - int(be.Uint16(b[offSigLen:]))
	be.PutUint32(b[offCRC:], frameCRC(b[:body]))
	chain := frameChain(b[:be.Uint32(b[offHeaderLen:])])
	copy(b[offChain:], chain[:])
	return b
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	for _, compress := range []bool{false, true} {
		cfg := sampleConfig()
		cfg.Compress = compress
		cfg.Sign = func(b []byte) []byte { return ed25519.Sign(key, b) }
		good := sampleFrame(t, cfg).Data
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			f, err := Parse(bad)
			if i/8 >= len(good)-ed25519.SignatureSize {
				if err == nil {
					err = f.Verify(key.Public().(ed25519.PublicKey))
				}
				if !errors.Is(err, ErrSignature) {
					t.Fatalf("bit %d of the signature at byte %d: %v", i%8, i/8, err)
				}
				continue
			}
			if err == nil {
				t.Fatalf("bit %d of byte %d was not noticed", i%8, i/8)
			}
			if i/8 < 4 != errors.Is(err, ErrNotFrame) || (i/8 == 4) != errors.Is(err, ErrVersion) {
				t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
			}
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	t.Parallel()
	good := sampleFrame(t, sampleConfig()).Data
	for n := range len(good) {
		want := ErrTruncated
		if n < 4 {
			want = ErrNotFrame
		}
		if _, err := Parse(good[:n:n]); !errors.Is(err, want) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(good), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte more: %v", err)
	}
}

// Frames whose checksum fits but whose contents break a rule.
func TestForgedHeaders(t *testing.T) {
	t.Parallel()
	put16 := func(at int, v uint16) func([]byte) { return func(b []byte) { be.PutUint16(b[at:], v) } }
	put32 := func(at int, v uint32) func([]byte) { return func(b []byte) { be.PutUint32(b[at:], v) } }
	put64 := func(at int, v uint64) func([]byte) { return func(b []byte) { be.PutUint64(b[at:], v) } }
	flags := uint16(First | Last | NewIncarnation)
	for name, c := range map[string]struct {
		forge func([]byte)
		want  error
	}{
		"kind 0":                    {func(b []byte) { b[offKind] = 0 }, ErrKind},
		"kind 5":                    {func(b []byte) { b[offKind] = 5 }, ErrKind},
		"unknown flag":              {put16(offFlags, flags|1<<12), ErrMalformed},
		"reserved":                  {put16(offReserved, 1), ErrMalformed},
		"signed without signature":  {put16(offFlags, flags|uint16(Signed)), ErrMalformed},
		"not new with number 1":     {put16(offFlags, uint16(First|Last)), ErrMalformed},
		"new with number 2":         {put64(offNumber, 2), ErrMalformed},
		"number 0":                  {put64(offNumber, 0), ErrMalformed},
		"incarnation 0":             {put32(offIncarn, 0), ErrMalformed},
		"previous chain at 1":       {func(b []byte) { b[offPrevChain] = 1 }, ErrMalformed},
		"end below previous":        {put64(offEnd, 1), ErrMalformed},
		"unfinished moves position": {put16(offFlags, uint16(First|NewIncarnation)), ErrMalformed},
		"first is not fragment 0":   {put32(offFragment, 1), ErrMalformed},
		"packet below fragment":     {put64(offPacketLen, 1), ErrMalformed},
		"packet above only frame":   {put64(offPacketLen, 1<<40), ErrMalformed},
		"payload above limit":       {put32(offRawLen, MaxPayload+1), ErrTooLarge},
		"stored above limit":        {put32(offStoredLen, MaxPayload+1), ErrTooLarge},
		"header length":             {put32(offHeaderLen, 1<<31), ErrMalformed},
		"name length":               {put16(fixedLen, 5000), ErrMalformed},
		"name too short":            {put16(fixedLen, 2), ErrMalformed},
		"compressed noise":          {put16(offFlags, flags|uint16(Compressed)), ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := sampleFrame(t, sampleConfig()).Data
			c.forge(b)
			if n := be.Uint32(b[offHeaderLen:]); n < 1000 {
				reseal(b)
			}
			_, err := Parse(b)
			if !errors.Is(err, c.want) && (name != "compressed noise" || !errors.Is(err, ErrMalformed)) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if strings.Contains(Describe(b), "someone@example.org") {
				t.Error("the description holds row values")
			}
		})
	}
}

func TestUnknownVersionAndKindAreNamed(t *testing.T) {
	t.Parallel()
	b := sampleFrame(t, sampleConfig()).Data
	b[offVersion] = 9
	var version *VersionError
	if _, err := Parse(b); !errors.As(err, &version) || version.Got != 9 || version.Hint() == "" {
		t.Errorf("version: %v", err)
	}
	b[offVersion], b[offKind] = Version, 77
	var kind *KindError
	if _, err := Parse(reseal(b)); !errors.As(err, &kind) || kind.Got != 77 || kind.Hint() == "" {
		t.Errorf("kind: %v", err)
	}
	for _, b := range [][]byte{nil, []byte("hello"), []byte("PGW"), []byte("pgwz0000")} {
		if _, err := Parse(b); !errors.Is(err, ErrNotFrame) {
			t.Errorf("foreign message %q: %v", b, err)
		}
	}
}

// bomb is a frame with an honest checksum whose payload is block.
func bomb(t testing.TB, block []byte, raw uint32) []byte {
	h := sampleFrame(t, sampleConfig()).Header
	h.Flags |= Compressed
	h.PayloadSize, h.PacketSize = raw, uint64(raw)
	b := make([]byte, headerLen(&h)+len(block))
	putHeader(b[:headerLen(&h)], &h, len(block), 0)
	copy(b[headerLen(&h):], block)
	return reseal(b)
}

func TestDecompressionBombs(t *testing.T) {
	t.Parallel()
	huge := s2.Encode(nil, make([]byte, 64<<20))
	lying := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, huge[4:]...) // claims 4 GiB
	for name, c := range map[string]struct {
		block []byte
		raw   uint32
		want  error
	}{
		"declared":            {huge, 64 << 20, ErrTooLarge},
		"declared small":      {huge, 1000, ErrTooLarge},
		"block claims 4 GiB":  {lying, 1000, ErrTooLarge},
		"nonsense":            {[]byte{0x80}, 1000, ErrMalformed},
		"shorter than stated": {append([]byte{0xe8, 0x07}, 0, 1), 1000, ErrMalformed},
	} {
		b := bomb(t, c.block, c.raw)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		// Other tests of the package run beside this one; the bombs are larger than those.
		if n := after.TotalAlloc - before.TotalAlloc; n > 60<<20 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	pub := key.Public().(ed25519.PublicKey)
	unsigned, err := Parse(sampleFrame(t, sampleConfig()).Data)
	if err != nil {
		t.Fatal(err)
	}
	cfg := sampleConfig()
	cfg.Sign = func(b []byte) []byte { return ed25519.Sign(key, b) }
	signed, err := Parse(sampleFrame(t, cfg).Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := signed.Verify(pub); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, err := range map[string]error{
		"missing":   unsigned.Verify(pub),
		"other key": signed.Verify(other.Public().(ed25519.PublicKey)),
		"no key":    signed.Verify(nil),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Someone who may publish but has no key changes a position and repairs the checksums.
	forged := sampleFrame(t, cfg).Data
	be.PutUint64(forged[offEnd:], 0x16B5000)
	f, err := Parse(reseal(forged))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(pub); !errors.Is(err, ErrSignature) {
		t.Errorf("forged: %v", err)
	}
}

// Payloads with any byte changed either fail or parse to something; never a panic.
func TestDamagedPayloads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewSource(4))
	var p builder
	rels := []*wal.Relation{randomRelation(r), users()}
	for range 6 {
		if err := p.add(randomTransaction(r, rels), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	good := p.finish()
	for i := range good {
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, good[i] ^ 0x10} {
			bad := bytes.Clone(good)
			bad[i] = v
			if _, err := ParsePacket(bad); err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if _, err := ParsePacket(good[:i]); i > 0 && !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// A few hundred bytes that announce millions of elements cost a reader next to nothing.
func TestBombsAreRefusedBeforeTheyGrow(t *testing.T) { // not parallel: it counts what is allocated
	table := func(b []byte, entries ...[]byte) []byte {
		be.PutUint64(b, uint64(len(b)))
		b = binary.AppendUvarint(b, uint64(len(entries)))
		for _, e := range entries {
			b = append(binary.AppendUvarint(b, uint64(len(e))), e...)
		}
		return b
	}
	head := func(txs, changes, values int) []byte {
		b := make([]byte, packetHead)
		be.PutUint32(b[8:], uint32(txs))
		be.PutUint32(b[12:], uint32(changes))
		be.PutUint32(b[16:], uint32(values))
		return b
	}
	transaction := func(b []byte, flags byte) []byte {
		b = append(b, flags, 1, 1, 1)
		return append(b, make([]byte, 8)...)
	}
	const many = 1_900_000
	rel := appendRelation(nil, &wal.Relation{Schema: "s", Name: "t", Identity: wal.IdentityFull})
	wide := appendRelation(nil, &wal.Relation{Schema: "s", Name: "t", Identity: wal.IdentityFull, Columns: make([]wal.Column, 1000)})
	for name, payload := range map[string][]byte{
		"changes": func() []byte {
			b := binary.AppendUvarint(transaction(head(1, many, 0), 0), many)
			for range many {
				b = append(b, byte(wal.Truncate), 0, 0, 0)
			}
			return table(b, rel)
		}(),
		"values": func() []byte {
			b := binary.AppendUvarint(transaction(head(1, 7000, 7_000_000), 0), 7000)
			for range 7000 {
				b = append(b, byte(wal.Insert), changeNew, 0, 0, 1000>>8, 1000&255)
				b = append(b, bytes.Repeat([]byte{byte(wal.Null)}, 1000)...)
			}
			return table(b, wide)
		}(),
		"transactions": func() []byte {
			b := head(500_000, 0, 0)
			for range 500_000 {
				b = append(transaction(b, 0), 0)
			}
			return table(b, rel)
		}(),
		"messages": func() []byte {
			b := binary.AppendUvarint(append(transaction(head(1, 0, 0), txMessages), 0), many)
			return table(append(b, make([]byte, 4*many)...), rel)
		}(),
		"relations": func() []byte {
			entries := make([][]byte, 1500)
			for i := range entries {
				entries[i] = wide
			}
			return table(append(transaction(head(1, 0, 0), 0), 0), entries...)
		}(),
	} {
		if len(payload) > MaxPayload {
			t.Fatalf("%s: the bomb has %d bytes", name, len(payload))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := (&RelationCache{}).ParsePacket(payload)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrTooLarge) || grown > 2*MaxParsed {
			t.Errorf("%s: %d bytes were allocated, error %v", name, grown, err)
		}
	}
}

// What the costs say is what the types take.
func TestCosts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]uintptr{
		"transaction": {costTransaction, unsafe.Sizeof(wal.Transaction{})}, "change": {costChange, unsafe.Sizeof(wal.Change{})},
		"value": {costValue, unsafe.Sizeof(wal.Value{})}, "notice": {costNotice, unsafe.Sizeof(wal.Notice{})},
		"message": {costMessage, unsafe.Sizeof(wal.Message{})}, "relation": {costRelation, unsafe.Sizeof(wal.Relation{})},
		"column": {costColumn, unsafe.Sizeof(wal.Column{})},
	} {
		if c[0] < c[1] {
			t.Errorf("a %s takes %d bytes, %d are counted", name, c[1], c[0])
		}
	}
}

// The encoder keeps to the readers' limit, and says when a packet is full before that.
func TestEncoderKeepsToTheLimitOfMemory(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "s", Name: "t", Identity: wal.IdentityFull, Columns: make([]wal.Column, 10)}
	for i := range rel.Columns {
		rel.Columns[i].Name = string(rune('a' + i))
	}
	e := NewEncoder(sampleConfig(), Position{Incarnation: 1, Number: 1})
	n := 0
	for ; e.Size() < MaxPayload; n++ {
		mustAdd(t, e, &wal.Transaction{XID: 1, CommitLSN: 1, EndLSN: 2, Changes: []wal.Change{{Op: wal.Insert, Relation: rel, New: nulls(10)}}})
	}
	for _, f := range e.Cut(Data, 0, 9, 1) {
		raw, err := Parse(f.Data)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := NewAssembler(0, nil).Add(raw); err != nil || len(p.Transactions) != n {
			t.Fatalf("a full packet of %d transactions is not readable: %v", n, err)
		}
	}
	giant := &wal.Transaction{XID: 1, CommitLSN: 1, EndLSN: 2, Changes: make([]wal.Change, MaxParsed/costChange)}
	for i := range giant.Changes {
		giant.Changes[i] = wal.Change{Op: wal.Truncate, Relation: rel}
	}
	if err := e.Add(giant); !errors.Is(err, ErrTooLarge) || e.Len() != 0 {
		t.Errorf("a transaction above the limit: %v, %d in the packet", err, e.Len())
	}
}

func nulls(n int) wal.Tuple {
	t := make(wal.Tuple, n)
	for i := range t {
		t[i].Kind = wal.Null
	}
	return t
}
