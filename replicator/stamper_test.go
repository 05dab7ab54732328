package replicator

import (
	"context"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

func acct() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "acct", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}, {Name: "version", OID: 20, Key: true}, {Name: "updated_at", OID: 1184, Key: true},
	}}
}

func plain() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "plain", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{
		{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true},
	}}
}

func tuple(vals ...string) wal.Tuple {
	t := make(wal.Tuple, len(vals))
	for i, v := range vals {
		t[i] = wal.Value{Kind: wal.Text, Bytes: []byte(v)}
	}
	return t
}

const day = " 00:00:00+00"

// table is an Items that keeps everything, as if every own change was merged at once.
type table map[tombstone.Ref][]conflict.Item

func (t table) Open(context.Context, wal.XID, wal.LSN) error { return nil }
func (t table) Any(wal.RelationName) bool                    { return true }

func (t table) Below(_ context.Context, at wal.LSN, refs []tombstone.Ref) ([]conflict.Item, error) {
	items := make([]conflict.Item, len(refs))
	for i, r := range refs {
		for _, it := range t[r] {
			if it.LSN < at {
				items[i] = items[i].Join(it)
			}
		}
	}
	return items, nil
}

func (t table) Note(rel wal.RelationName, key []byte, at tombstone.Place, it conflict.Item) {
	it.LSN = at.Commit
	t.put(rel, string(key), it)
}

func (t table) Clock(_ wal.LSN, commit wal.Micros) wal.Micros { return commit }
func (t table) Free(wal.XID, wal.LSN)                         {}
func (t table) Own(rel *wal.Relation) wal.RelationName        { return rel.Ref() }
func (t table) Also(*wal.Relation) []wal.RelationName         { return nil }
func (t table) Truncated(wal.RelationName, tombstone.Place)   {}

func (t table) put(rel wal.RelationName, key string, it conflict.Item) {
	r := tombstone.Ref{Relation: rel, Key: key}
	t[r] = append(t[r], it)
}

func newStamper() (*Stamper, table) {
	x := table{}
	return NewStamper(func(wal.RelationName) TablePolicy {
		return TablePolicy{Version: "version", UpdatedAt: "updated_at"}
	}, x), x
}

func tx(lsn wal.LSN, chs ...wal.Change) *wal.Transaction {
	return &wal.Transaction{XID: wal.XID(lsn), CommitLSN: lsn, EndLSN: lsn + 50, CommitTime: wal.Micros(lsn) * 1000, Changes: chs}
}

func TestStamperCountsTheLivesOfAKey(t *testing.T) {
	t.Parallel()
	s, x := newStamper()
	r := acct()
	row := tuple("1", "a", "5", "2024-01-01"+day)
	again := tuple("1", "b", "1", "2024-01-02"+day)
	one := tx(100, wal.Change{Op: wal.Delete, Relation: r, Old: row, OldFull: true}, wal.Change{Op: wal.Insert, Relation: r, New: again})
	if err := s.Stamp(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if got := one.Changes[0].Stamp; got.Generation != 0 || got.Version != 6 {
		t.Errorf("delete has stamp %+v", got)
	}
	if got := one.Changes[1].Stamp; got.Generation != 1 || got.Version != 1 {
		t.Errorf("insert over the tombstone has stamp %+v", got)
	}
	if it := x.below(t, r, "1", 101); it.Next != 1 {
		t.Errorf("item %+v", it)
	}
	// Decoded once more, after the tombstone is known, the stamps are the same.
	same := tx(100, wal.Change{Op: wal.Delete, Relation: r, Old: row, OldFull: true}, wal.Change{Op: wal.Insert, Relation: r, New: again})
	if err := s.Stamp(t.Context(), same); err != nil {
		t.Fatal(err)
	}
	for i := range same.Changes {
		if same.Changes[i].Stamp != one.Changes[i].Stamp {
			t.Errorf("change %d: %+v the first time, %+v the second", i, one.Changes[i].Stamp, same.Changes[i].Stamp)
		}
	}
	later := tx(200, wal.Change{Op: wal.Update, Relation: r, Old: again, OldFull: true, New: tuple("1", "c", "2", "2024-01-03"+day)})
	if err := s.Stamp(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if got := later.Changes[0]; got.Stamp.Generation != 1 || got.Base.Stamp.Generation != 1 || got.Old != nil {
		t.Errorf("update of the second life: %+v", got)
	}
}

func TestStamperLiftsWhatDoesNotRise(t *testing.T) {
	t.Parallel()
	s, _ := newStamper()
	r := acct()
	back := tx(100, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "z", "5", "2024-01-05"+day), OldFull: true, New: tuple("1", "a", "1", "2024-01-01"+day)})
	if err := s.Stamp(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if got := back.Changes[0].Stamp; got.Generation != 1 || s.Lifted != 1 {
		t.Errorf("stamp %+v, lifted %d", got, s.Lifted)
	}
}

func TestStamperSplitsChangesOfTheKey(t *testing.T) {
	t.Parallel()
	s, _ := newStamper()
	r := acct()
	move := tx(100, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "a", "1", "2024-01-01"+day), OldFull: true, New: tuple("2", "a", "2", "2024-01-02"+day)})
	if err := s.Stamp(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	if len(move.Changes) != 2 || move.Changes[0].Op != wal.Delete || move.Changes[1].Op != wal.Insert {
		t.Fatalf("changes %+v", move.Changes)
	}
}

func (t table) below(tt *testing.T, r *wal.Relation, id string, at wal.LSN) conflict.Item {
	tt.Helper()
	items, err := t.Below(tt.Context(), at, []tombstone.Ref{{Relation: r.Ref(), Key: `["` + id + `"]`}})
	if err != nil {
		tt.Fatal(err)
	}
	return items[0]
}

func TestStamperGivesTimesToTablesWithoutStamps(t *testing.T) {
	t.Parallel()
	s, x := newStamper()
	r := plain()
	x.put(r.Ref(), `["1"]`, conflict.Item{LSN: 90, At: 900_000}) // a peer's clock is ahead
	write := func(lsn wal.LSN) *wal.Transaction {
		return tx(lsn, wal.Change{Op: wal.Insert, Relation: r, New: tuple("1", "a")}, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "a"), OldFull: true, New: tuple("1", "b")},
			wal.Change{Op: wal.Insert, Relation: r, New: tuple("2", "a")})
	}
	one := write(100)
	if err := s.Stamp(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if a, b, c := one.Changes[0].Stamp.UpdatedAt, one.Changes[1].Stamp.UpdatedAt, one.Changes[2].Stamp.UpdatedAt; a != 900_001 || b <= a || c != one.CommitTime {
		t.Errorf("times %d, %d and %d", a, b, c)
	}
	// Decoded again, after later writes are known: the same times.
	x.put(r.Ref(), `["1"]`, conflict.Item{LSN: 5000, At: 7_000_000})
	again := write(100)
	if err := s.Stamp(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	for i := range again.Changes {
		if again.Changes[i].Stamp != one.Changes[i].Stamp {
			t.Errorf("change %d: %+v, then %+v", i, one.Changes[i].Stamp, again.Changes[i].Stamp)
		}
	}
}

// TestStampsAreTheSameAtEveryDecoding: three lives of a key, decoded again from each position
// by a process that knows what was merged, whole or in part.
func TestStampsAreTheSameAtEveryDecoding(t *testing.T) {
	t.Parallel()
	r := acct()
	row := tuple("1", "a", "5", "2024-01-01"+day)
	del := wal.Change{Op: wal.Delete, Relation: r, Old: tuple("1", "", "", "")}
	log := func() []*wal.Transaction {
		var txs []*wal.Transaction
		for i := range wal.LSN(6) {
			ch := wal.Change{Op: wal.Insert, Relation: r, New: row}
			if i%2 == 0 {
				ch = del
			}
			txs = append(txs, tx(100+100*i, ch))
		}
		return append(txs, tx(900, del, wal.Change{Op: wal.Insert, Relation: r, New: row}, del))
	}
	s, all := newStamper()
	first := log()
	for _, x := range first {
		if err := s.Stamp(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if got := first[6].Changes[2].Stamp.Generation; got != 4 {
		t.Fatalf("the last delete ends life %d", got)
	}
	for from := range first {
		for merged := from; merged <= len(first); merged++ {
			s, x := newStamper()
			for _, m := range first[:merged] {
				x.put(r.Ref(), `["1"]`, conflict.Item{LSN: m.CommitLSN, Next: all.below(t, r, "1", m.CommitLSN+1).Next})
			}
			for n, again := range log()[from:] {
				if err := s.Stamp(t.Context(), again); err != nil {
					t.Fatal(err)
				}
				for i := range again.Changes {
					if a, b := first[from+n].Changes[i].Stamp, again.Changes[i].Stamp; a != b {
						t.Errorf("from %d, merged %d: change %d at %s was %+v, is %+v", from, merged, i, again.CommitLSN, a, b)
					}
				}
			}
		}
	}
}

// Something lower of another region was written over an own row that it did not know yet. What this region
// writes next is above its own row all the same, and says what it overwrote: that, and not a row of
// the same version and time in the generation of its own.
func TestStamperGoesAboveWhatWasOverwritten(t *testing.T) {
	t.Parallel()
	r := acct()
	low := tuple("1", "low", "5", "2024-01-01"+day)
	for name, c := range map[string]struct {
		last conflict.Item
		ch   wal.Change
		want string
		base string
	}{
		"an insert behind a lower delete": {conflict.Item{LSN: 200, Next: 2}, wal.Change{Op: wal.Insert, Relation: r, New: low}, "4/5/2024-01-01T00:00:00.000000Z", "0/0/1970-01-01T00:00:00.000000Z"},
		"an update of a lower row": {conflict.Item{LSN: 200, Next: 2, Live: true},
			wal.Change{Op: wal.Update, Relation: r, Old: low, OldFull: true, New: tuple("1", "b", "6", "2024-01-02"+day)}, "4/6/2024-01-02T00:00:00.000000Z", "2/5/2024-01-01T00:00:00.000000Z"},
		"a delete of a lower row": {conflict.Item{LSN: 200, Next: 2, Live: true},
			wal.Change{Op: wal.Delete, Relation: r, Old: low, OldFull: true}, "4/6/2024-01-01T00:00:00.000001Z", "2/5/2024-01-01T00:00:00.000000Z"},
		"an update of its own row": {conflict.Item{LSN: 50, Next: 2, Live: true},
			wal.Change{Op: wal.Update, Relation: r, Old: low, OldFull: true, New: tuple("1", "b", "6", "2024-01-02"+day)}, "3/6/2024-01-02T00:00:00.000000Z", "3/5/2024-01-01T00:00:00.000000Z"},
	} {
		s, x := newStamper()
		x.put(r.Ref(), `["1"]`, conflict.Item{LSN: 100, Next: 3, Live: true})
		x.put(r.Ref(), `["1"]`, c.last)
		one := tx(300, c.ch)
		if err := s.Stamp(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		ch := &one.Changes[0]
		if got, base := conflict.StampText(ch.Stamp), conflict.StampText(ch.Base.Stamp); got != c.want || base != c.base {
			t.Errorf("%s: %s over %s; want %s over %s", name, got, base, c.want, c.base)
		}
		if raised := ch.Op != wal.Delete && ch.Stamp.Generation == 4; ch.Raised != raised {
			t.Errorf("%s: raised %t", name, ch.Raised)
		}
	}
}
