package wire

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func bigTransaction(rel *wal.Relation, size int) *wal.Transaction {
	v := make([]byte, size)
	rand.New(rand.NewSource(9)).Read(v)
	tx := userUpdate(rel, 3)
	tx.Changes[0].New[5] = wal.Value{Kind: wal.Text, Bytes: v}
	return tx
}

// A value of 5 MB, cut so that the cuts fall into every part of a packet: the head, a
// stamp, a length, a value, the relation table, and exactly between frames.
func TestFragmentsOfALargeValue(t *testing.T) {
	t.Parallel()
	rel := users()
	txs := []*wal.Transaction{userUpdate(rel, 1), bigTransaction(rel, 5<<20), userUpdate(rel, 4)}
	for _, maxFrame := range []int{64 << 10, 64<<10 + 1, 900 << 10, 5 << 20, 5<<20 + 700, 5<<20 + 1200, MaxPayload} {
		for _, compress := range []bool{false, true} {
			cfg := sampleConfig()
			cfg.MaxFrame, cfg.Compress = maxFrame, compress
			e := NewEncoder(cfg, Position{Incarnation: 1, EndLSN: 10})
			mustAdd(t, e, txs...)
			frames := e.Cut(Data, 0, 99, sampleTime)
			for i, f := range frames {
				h := f.Header
				last := i == len(frames)-1
				if h.Flags.Has(First) != (i == 0) || h.Flags.Has(Last) != last || h.Fragment != uint32(i) {
					t.Errorf("fragment %d of %d has flags %s, place %d", i, len(frames), h.Flags, h.Fragment)
				}
				if want := map[bool]wal.LSN{false: 10, true: 99}[last]; h.EndLSN != want {
					t.Errorf("fragment %d ends at %s", i, h.EndLSN)
				}
				if len(f.Data) > maxFrame {
					t.Errorf("message of %d bytes, the limit is %d", len(f.Data), maxFrame)
				}
			}
			same(t, mustParse(t, NewAssembler(6<<20, nil), frames), txs)
		}
	}
}

// Every place a small packet can be cut at.
func TestEveryBoundary(t *testing.T) {
	t.Parallel()
	rel := users()
	txs := []*wal.Transaction{userUpdate(rel, 1), userUpdate(rel, 2)}
	var p builder
	for _, tx := range txs {
		if err := p.add(tx, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	payload := p.finish()
	for cut := 1; cut < len(payload); cut++ {
		e := NewEncoder(sampleConfig(), Position{Incarnation: 1})
		h := Header{Version: Version, Kind: Data, Cluster: "c", Origin: "o", PacketSize: uint64(len(payload)), Flags: First | NewIncarnation}
		a := NewAssembler(0, nil)
		one := e.frame(h, payload[:cut])
		h.Flags, h.Fragment, h.Transactions, h.Changes = Last, 1, 2, 2
		two := e.frame(h, payload[cut:])
		same(t, mustParse(t, a, []Frame{one, two}), txs)
	}
}

func TestAssemblerRefuses(t *testing.T) {
	t.Parallel()
	rel := users()
	fragments := func(tweak func(*EncoderConfig)) []*RawFrame {
		cfg := sampleConfig()
		cfg.MaxFrame = 1000
		if tweak != nil {
			tweak(&cfg)
		}
		e := NewEncoder(cfg, Position{Incarnation: 1})
		mustAdd(t, e, bigTransaction(rel, 5000))
		var raws []*RawFrame
		for f := range e.CutSeq(Data, 0, 9, 0) {
			raw, err := Parse(f.Data)
			if err != nil {
				t.Fatal(err)
			}
			raws = append(raws, raw)
		}
		return raws
	}
	f := fragments(nil)
	if len(f) < 5 {
		t.Fatalf("%d fragments", len(f))
	}
	other := fragments(func(c *EncoderConfig) { c.Origin = "us" })
	longer := *f[1]
	longer.Payload = bytes.Repeat([]byte{1}, 9000)
	short := *f[len(f)-1]
	short.Payload = short.Payload[1:]
	miscounted := *f[len(f)-1]
	miscounted.Changes++
	for name, c := range map[string]struct {
		frames []*RawFrame
		want   error
	}{
		"no beginning":  {f[1:2], ErrFragment},
		"left out":      {[]*RawFrame{f[0], f[2]}, ErrFragment},
		"doubled":       {[]*RawFrame{f[0], f[1], f[1]}, ErrFragment},
		"other origin":  {[]*RawFrame{f[0], other[1]}, ErrFragment},
		"too many":      {[]*RawFrame{f[0], &longer}, ErrFragment},
		"too few":       {append(f[:len(f)-1:len(f)-1], &short), ErrFragment},
		"miscounted":    {append(f[:len(f)-1:len(f)-1], &miscounted), ErrMalformed},
		"above maximum": {f[:1], ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := 0
			if c.want == ErrTooLarge {
				limit = 4000
			}
			a := NewAssembler(limit, nil)
			for _, raw := range c.frames[:len(c.frames)-1] {
				if p, err := a.Add(raw); p != nil || err != nil {
					t.Fatalf("got %v, %v", p, err)
				}
			}
			if _, err := a.Add(c.frames[len(c.frames)-1]); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if a.Pending() {
				t.Error("the packet is still open")
			}
		})
	}
}

// A writer that dies between two fragments begins its packet anew behind them.
func TestUnfinishedPacketIsAbandoned(t *testing.T) {
	t.Parallel()
	rel := users()
	cfg := sampleConfig()
	cfg.MaxFrame = 1000
	e := NewEncoder(cfg, Position{Incarnation: 1, EndLSN: 7})
	mustAdd(t, e, bigTransaction(rel, 5000))
	var frames []Frame
	for f := range e.CutSeq(Data, 0, 9, 0) {
		if frames = append(frames, f); len(frames) == 3 {
			break
		}
	}
	if e.Position().EndLSN != 7 || e.Position().Number != 3 || e.Len() != 0 {
		t.Errorf("position %+v with %d transactions", e.Position(), e.Len())
	}
	again := NewEncoder(cfg, frames[2].Header.Position())
	tx := bigTransaction(rel, 5000)
	mustAdd(t, again, tx)
	a := NewAssembler(0, nil)
	if got := mustParse(t, a, frames); len(got) != 0 || !a.Pending() {
		t.Errorf("%d transactions came of half a packet", len(got))
	}
	same(t, mustParse(t, a, again.Cut(Data, 0, 9, 0)), []*wal.Transaction{tx})
}

// An announcement costs nothing: memory follows the bytes that came.
func TestAssemblerMemoryFollowsData(t *testing.T) {
	t.Parallel()
	a := NewAssembler(1<<30, nil)
	f := &RawFrame{Header: Header{Flags: First, PacketSize: 1 << 30}, Payload: make([]byte, 1000)}
	for range 100 {
		if _, err := a.Add(f); err != nil {
			t.Fatal(err)
		}
		if cap(a.buf) > 4*len(a.buf)+4096 {
			t.Fatalf("%d bytes of room for %d", cap(a.buf), len(a.buf))
		}
		f.Number, f.Fragment, f.Flags = a.next.Number, a.next.Fragment, 0
	}
}

// A stored frame of the default size fits through a server's default max_payload.
func TestStoredSizeOfTheDefault(t *testing.T) {
	t.Parallel()
	if n := StoredSize(DefaultMaxFrame); n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
}
