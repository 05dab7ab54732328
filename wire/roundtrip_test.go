package wire

import (
	"bytes"
	"errors"
	"math/rand"
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Whatever the transactions, the frame size and the compression: what was added comes back,
// and the frames form one chain.
func TestRoundTripProperty(t *testing.T) {
	t.Parallel()
	quickly(t, 400, func(r *rand.Rand) bool {
		rels := []*wal.Relation{randomRelation(r), randomRelation(r), randomRelation(r)}
		cfg := sampleConfig()
		cfg.Compress = r.Intn(2) == 0
		cfg.MaxFrame = []int{0, 512, 700, 4096}[r.Intn(4)]
		start := Position{Incarnation: 1 + r.Uint32()>>1, EndLSN: wal.LSN(r.Intn(1000))}
		e := NewEncoder(cfg, start)
		var frames []Frame
		var want []*wal.Transaction
		for range 1 + r.Intn(4) {
			for range r.Intn(5) {
				tx := randomTransaction(r, rels)
				mustAdd(t, e, tx)
				want = append(want, tx)
			}
			frames = append(frames, e.Cut(Data, Resync, wal.LSN(r.Intn(5000)), sampleTime)...)
			if e.Len() != 0 || e.Size() != 0 {
				t.Error("a cut leaves something in the packet")
			}
		}
		prev := start
		for _, f := range frames {
			h := f.Header
			if h.Number != prev.Number+1 || h.PrevEndLSN != prev.EndLSN || h.PrevChain != prev.Chain || h.EndLSN < prev.EndLSN {
				t.Errorf("frame %d does not continue %d", h.Number, prev.Number)
			}
			if h.Flags.Has(Resync) != (h.Number == 1) {
				t.Errorf("flags of frame %d: %s", h.Number, h.Flags)
			}
			if cfg.MaxFrame > 0 && len(f.Data) > cfg.MaxFrame {
				t.Errorf("frame of %d bytes, the limit is %d", len(f.Data), cfg.MaxFrame)
			}
			prev = h.Position()
		}
		return e.Position() == prev && same(t, mustParse(t, NewAssembler(0, new(RelationCache)), frames), want)
	})
}

func TestEncodeTransactionProperty(t *testing.T) {
	t.Parallel()
	quickly(t, 300, func(r *rand.Rand) bool {
		tx := randomTransaction(r, []*wal.Relation{randomRelation(r), randomRelation(r)})
		b, err := EncodeTransaction(tx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseTransaction(b)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b)
		bad[len(b)-1-r.Intn(len(b)-txHead)] ^= 1
		if _, err := ParseTransaction(bad); !errors.Is(err, ErrCRC) {
			t.Errorf("flipped bit: %v", err)
		}
		return reflect.DeepEqual(got, tx)
	})
}

func TestParseChange(t *testing.T) {
	t.Parallel()
	tx := userUpdate(users(), 9)
	tx.Changes = append(tx.Changes, wal.Change{Op: wal.Delete, Relation: tx.Changes[0].Relation, Old: userRow(), OldFull: true})
	one := *tx
	one.Changes = tx.Changes[1:]
	b, err := EncodeTransaction(&one)
	if err != nil {
		t.Fatal(err)
	}
	gotTx, got, err := ParseChange(b)
	if err != nil {
		t.Fatal(err)
	}
	if gotTx.XID != 9 || gotTx.EndLSN != tx.EndLSN || got.Op != wal.Delete || !reflect.DeepEqual(got.Old, tx.Changes[1].Old) {
		t.Errorf("got %+v of %+v", got, gotTx)
	}
	b[4] = 7
	var version *VersionError
	if _, _, err := ParseChange(b); !errors.As(err, &version) || version.Got != 7 {
		t.Errorf("unknown version: %v", err)
	}
	if _, err := ParseTransaction(b[:6]); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut short: %v", err)
	}
	if _, err := ParseTransaction([]byte("PGWZ")); !errors.Is(err, ErrNotFrame) {
		t.Errorf("foreign: %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	e := NewEncoder(sampleConfig(), Position{Incarnation: 1, EndLSN: 100})
	frames := e.Cut(Heartbeat, 0, 200, sampleTime)
	if len(frames) != 1 {
		t.Fatalf("%d frames", len(frames))
	}
	h := frames[0].Header
	if h.PrevEndLSN != 100 || h.EndLSN != 200 || h.Flags != First|Last|NewIncarnation || h.PacketSize != 0 {
		t.Errorf("header %+v", h)
	}
	if want := "eu/7301234567890123456.3/1/1"; frames[0].MsgID != want {
		t.Errorf("message id %s, want %s", frames[0].MsgID, want)
	}
	raw, err := Parse(frames[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewAssembler(0, nil).Add(raw)
	if err != nil || p == nil || len(p.Transactions) != 0 {
		t.Errorf("packet %v, %v", p, err)
	}
	// A lower position never takes the stream back.
	if f := e.Cut(Heartbeat, 0, 150, sampleTime)[0]; f.Header.EndLSN != 200 {
		t.Errorf("end %s after 0/C8", f.Header.EndLSN)
	}
}

func TestRelationsKeepTheirPointer(t *testing.T) {
	t.Parallel()
	cache := new(RelationCache)
	var got []*wal.Relation
	for range 2 {
		// Two origins' encoders, or one before and one after a restart: other pointers, same table.
		e := NewEncoder(sampleConfig(), Position{Incarnation: 1})
		mustAdd(t, e, userUpdate(users(), 1), userUpdate(users(), 2))
		for _, tx := range mustParse(t, NewAssembler(0, cache), e.Cut(Data, 0, 1, 0)) {
			got = append(got, tx.Changes[0].Relation)
		}
	}
	for _, rel := range got {
		if rel != got[0] {
			t.Error("the same table came as two relations")
		}
	}
	changed := users()
	changed.Columns[1].TypeMod = 5
	e := NewEncoder(sampleConfig(), Position{Incarnation: 1})
	mustAdd(t, e, userUpdate(changed, 1))
	if rel := mustParse(t, NewAssembler(0, cache), e.Cut(Data, 0, 1, 0))[0].Changes[0].Relation; rel == got[0] {
		t.Error("a changed table came as the old relation")
	}
}

func TestCompressionNeverGrows(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 5000)
	rand.New(rand.NewSource(1)).Read(noise)
	for name, c := range map[string]struct {
		value []byte
		packs bool
	}{"noise": {noise, false}, "zeros": {make([]byte, 5000), true}} {
		rel := &wal.Relation{Schema: "s", Name: "t", Identity: 'd', Columns: []wal.Column{{Name: "v", OID: 17}}}
		tx := &wal.Transaction{Changes: []wal.Change{{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Binary, Bytes: c.value}}}}}
		cfg := sampleConfig()
		plain := NewEncoder(cfg, Position{Incarnation: 1})
		cfg.Compress = true
		packed := NewEncoder(cfg, Position{Incarnation: 1})
		mustAdd(t, plain, tx)
		mustAdd(t, packed, tx)
		a, b := plain.Cut(Data, 0, 1, 0)[0], packed.Cut(Data, 0, 1, 0)[0]
		if b.Header.Flags.Has(Compressed) != c.packs || len(b.Data) > len(a.Data) {
			t.Errorf("%s: %d bytes plain, %d with flags %s", name, len(a.Data), len(b.Data), b.Header.Flags)
		}
		if got := mustParse(t, NewAssembler(0, nil), []Frame{b}); !bytes.Equal(got[0].Changes[0].New[0].Bytes, c.value) {
			t.Errorf("%s: value differs", name)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	rel := users()
	for name, c := range map[string]struct {
		change wal.Change
		want   error
	}{
		"no relation":     {wal.Change{Op: wal.Insert}, ErrMalformed},
		"unknown op":      {wal.Change{Op: 'X', Relation: rel}, ErrMalformed},
		"short tuple":     {wal.Change{Op: wal.Insert, Relation: rel, New: userRow()[:9]}, ErrMalformed},
		"unknown value":   {wal.Change{Op: wal.Insert, Relation: rel, New: make(wal.Tuple, 10)}, ErrMalformed},
		"oversized":       {wal.Change{Op: wal.Insert, Relation: rel, New: append(userRow()[:9:9], wal.Value{Kind: wal.Text, Bytes: make([]byte, 9000)})}, ErrTooLarge},
		"short old tuple": {wal.Change{Op: wal.Delete, Relation: rel, Old: userRow()[:1]}, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := sampleConfig()
			cfg.MaxPacket = 8000
			e := NewEncoder(cfg, Position{Incarnation: 1})
			good := userUpdate(rel, 5)
			mustAdd(t, e, good)
			if err := e.Add(&wal.Transaction{XID: 6, Changes: []wal.Change{good.Changes[0], c.change}}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			after := userUpdate(rel, 7)
			mustAdd(t, e, after)
			same(t, mustParse(t, NewAssembler(0, nil), e.Cut(Data, 0, 9, 0)), []*wal.Transaction{good, after})
		})
	}
}
