package wire

import (
	"math/rand"
	"reflect"
	"testing"
	"testing/quick"

	"github.com/pgwaltz/pgwaltz/wal"
)

var sampleEpoch = wal.Epoch{SystemID: 7301234567890123456, Timeline: 3, Slot: "pgwaltz_eu"}

const sampleTime = wal.Micros(1_760_000_000_000_000)

func sampleConfig() EncoderConfig {
	return EncoderConfig{Cluster: "accounts", Origin: "eu", Epoch: sampleEpoch}
}

// users is a table of ten columns, the benchmark's too.
func users() *wal.Relation {
	names := [...]string{"id", "email", "name", "balance", "status", "note", "version", "created_at", "updated_at", "tags"}
	oids := [...]uint32{20, 25, 25, 1700, 60001, 25, 20, 1184, 1184, 1009}
	rel := &wal.Relation{Schema: "public", Name: "users", Identity: wal.IdentityFull, PrimaryKey: []int{0}}
	for i, n := range names {
		c := wal.Column{Name: n, OID: oids[i], TypeMod: -1, Key: true}
		if oids[i] > 16384 {
			c.Type = "public.user_status"
		}
		rel.Columns = append(rel.Columns, c)
	}
	return rel
}

func text(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }

func userRow() wal.Tuple {
	return wal.Tuple{
		{Kind: wal.Binary, Bytes: []byte{0, 0, 0, 0, 0, 0, 0, 42}}, text("someone@example.org"), text("Some One"),
		text("1234.5600"), text("active"), {Kind: wal.Null}, text("7"), text("2025-10-01 10:00:00.123456+00"),
		text("2025-10-09 08:53:20.000001+00"), {Kind: wal.Unchanged},
	}
}

func userUpdate(rel *wal.Relation, xid wal.XID) *wal.Transaction {
	end := wal.LSN(0x16B3748 + uint64(xid)*0x100)
	return &wal.Transaction{
		XID: xid, CommitLSN: end - 0x30, EndLSN: end, CommitTime: sampleTime + wal.Micros(xid),
		Changes: []wal.Change{{
			Op: wal.Update, Relation: rel, New: userRow(),
			Stamp: wal.Stamp{Version: 7, UpdatedAt: sampleTime - 35},
			Base:  wal.Base{Known: true, Stamp: wal.Stamp{Version: 6, UpdatedAt: sampleTime - 1e9}},
		}},
	}
}

// randomTransaction draws a transaction of every shape the format has, in the form that
// parsing gives back: nil where nothing is, and no base stamp where the base is unknown.
func randomTransaction(r *rand.Rand, rels []*wal.Relation) *wal.Transaction {
	tx := &wal.Transaction{
		XID: wal.XID(r.Uint32()), CommitLSN: wal.LSN(r.Uint64()), EndLSN: wal.LSN(r.Uint64() >> r.Intn(64)),
		CommitTime: randomMicros(r), Part: uint32(r.Intn(3)), More: r.Intn(4) == 0, Applied: r.Intn(4) == 0,
	}
	if r.Intn(4) == 0 {
		tx.Origin = randomString(r)
	}
	for range r.Intn(5) {
		rel := rels[r.Intn(len(rels))]
		c := wal.Change{Relation: rel, Op: []wal.Op{wal.Insert, wal.Update, wal.Delete, wal.Truncate}[r.Intn(4)], Stamp: randomStamp(r)}
		if r.Intn(2) == 0 {
			c.Old, c.OldFull = randomTuple(r, rel), r.Intn(2) == 0
		}
		if r.Intn(3) != 0 {
			c.New = randomTuple(r, rel)
		}
		if r.Intn(2) == 0 {
			c.Base.Known, c.Base.Stamp = true, randomStamp(r)
		}
		if r.Intn(3) == 0 {
			c.Base.HasDigest = true
			r.Read(c.Base.Digest[:])
		}
		c.Repair = r.Intn(4) == 0
		if c.Answer = c.Repair && r.Intn(2) == 0; c.Answer {
			c.Asked = randomStamp(r)
		}
		tx.Changes = append(tx.Changes, c)
	}
	if r.Intn(3) == 0 {
		for range 1 + r.Intn(3) {
			rel := rels[r.Intn(len(rels))]
			n := wal.Notice{Relation: rel, To: randomString(r), Type: randomString(r), Outcome: wal.Outcome(r.Intn(5)), Yours: randomEntry(r, rel), Mine: randomEntry(r, rel)}
			r.Read(n.ID[:])
			tx.Notices = append(tx.Notices, n)
		}
	}
	if r.Intn(4) == 0 {
		for range 1 + r.Intn(3) {
			tx.Messages = append(tx.Messages, wal.Message{
				Transactional: r.Intn(2) == 0, LSN: wal.LSN(r.Uint64()), Prefix: randomString(r), Content: []byte(randomString(r)),
			})
		}
	}
	return tx
}

func randomEntry(r *rand.Rand, rel *wal.Relation) wal.Entry {
	e := wal.Entry{Known: r.Intn(4) != 0, Alive: r.Intn(2) == 0}
	if e.Known {
		e.Stamp = randomStamp(r)
	}
	if r.Intn(3) != 0 {
		e.Row = randomTuple(r, rel)
	}
	return e
}

func randomRelation(r *rand.Rand) *wal.Relation {
	rel := &wal.Relation{
		Schema: randomString(r), Name: randomString(r), Columns: make([]wal.Column, r.Intn(6)),
		Identity: []wal.Identity{wal.IdentityDefault, wal.IdentityNothing, wal.IdentityFull, wal.IdentityIndex}[r.Intn(4)],
	}
	for i := range rel.Columns {
		rel.Columns[i] = wal.Column{
			Name: randomString(r), OID: r.Uint32(), Type: randomString(r), TypeMod: int32(r.Uint32()), Key: r.Intn(2) == 0,
		}
	}
	if r.Intn(2) == 0 {
		rel.PrimaryKey = []int{}
		for i := range rel.Columns {
			if r.Intn(2) == 0 {
				rel.PrimaryKey = append(rel.PrimaryKey, i)
			}
		}
	}
	return rel
}

func randomTuple(r *rand.Rand, rel *wal.Relation) wal.Tuple {
	t := make(wal.Tuple, len(rel.Columns))
	for i := range t {
		t[i].Kind = []wal.Kind{wal.Null, wal.Unchanged, wal.Text, wal.Binary, wal.Digest}[r.Intn(5)]
		if t[i].Kind == wal.Digest {
			t[i] = wal.Digested([]byte(randomString(r)))
		}
		if t[i].Kind == wal.Text || t[i].Kind == wal.Binary {
			t[i].Bytes = []byte(randomString(r))
		}
	}
	return t
}

func randomStamp(r *rand.Rand) wal.Stamp {
	s := wal.Stamp{UpdatedAt: randomMicros(r)}
	if r.Intn(2) == 0 {
		s.Generation = r.Uint32() >> r.Intn(32)
	}
	switch r.Intn(4) {
	case 0:
		s.Version = wal.NullVersion
	case 1:
		s.Version = wal.MaxVersion
	default:
		s.Version = int64(r.Uint64()) >> r.Intn(64)
	}
	return s
}

func randomMicros(r *rand.Rand) wal.Micros {
	switch r.Intn(5) {
	case 0:
		return wal.MinMicros
	case 1:
		return wal.MaxMicros
	case 2:
		return wal.Micros(r.Uint64())
	}
	return sampleTime + wal.Micros(r.Intn(2e6)-1e6)
}

func randomString(r *rand.Rand) string {
	b := make([]byte, r.Intn(12))
	r.Read(b)
	return string(b)
}

// quickly runs f on generated transactions; each call sees another seed.
func quickly(t *testing.T, n int, f func(r *rand.Rand) bool) {
	t.Helper()
	err := quick.Check(func(seed int64) bool { return f(rand.New(rand.NewSource(seed))) }, &quick.Config{MaxCount: n})
	if err != nil {
		t.Error(err)
	}
}

func same(t *testing.T, got, want []*wal.Transaction) bool {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d transactions, want %d", len(got), len(want))
		return false
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("transaction %d: got %+v, want %+v", i, got[i], want[i])
			return false
		}
	}
	return true
}

// mustParse parses frames in order and returns the transactions of all packets.
func mustParse(t *testing.T, a *Assembler, frames []Frame) []*wal.Transaction {
	t.Helper()
	var txs []*wal.Transaction
	for _, f := range frames {
		raw, err := Parse(f.Data)
		if err != nil {
			t.Fatalf("parse %s: %v", f.MsgID, err)
		}
		if raw.Header != f.Header {
			t.Fatalf("header of %s: got %+v, want %+v", f.MsgID, raw.Header, f.Header)
		}
		p, err := a.Add(raw)
		if err != nil {
			t.Fatalf("assemble %s: %v", f.MsgID, err)
		}
		if p != nil {
			txs = append(txs, p.Transactions...)
		}
	}
	return txs
}

func mustAdd(t testing.TB, e *Encoder, txs ...*wal.Transaction) {
	t.Helper()
	for _, tx := range txs {
		if err := e.Add(tx); err != nil {
			t.Fatalf("add: %v", err)
		}
	}
}
