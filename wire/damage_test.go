package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand"
	"runtime"
	"strings"
	"testing"

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
		"unknown flag":              {put16(offFlags, flags|1<<9), ErrMalformed},
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
