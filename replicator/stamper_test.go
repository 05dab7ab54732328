package replicator

import (
	"testing"

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

func newStamper() (*Stamper, *tombstone.Index, *Clock) {
	x, c := tombstone.NewIndex(0), &Clock{}
	return NewStamper(func(wal.RelationName) TablePolicy {
		return TablePolicy{Version: "version", UpdatedAt: "updated_at"}
	}, x, c, NewStamps()), x, c
}

func tx(lsn wal.LSN, chs ...wal.Change) *wal.Transaction {
	return &wal.Transaction{XID: wal.XID(lsn), CommitLSN: lsn, EndLSN: lsn + 50, CommitTime: wal.Micros(lsn) * 1000, Changes: chs}
}

func TestStamperCountsTheLivesOfAKey(t *testing.T) {
	t.Parallel()
	s, x, _ := newStamper()
	r := acct()
	row := tuple("1", "a", "5", "2024-01-01"+day)
	again := tuple("1", "b", "1", "2024-01-02"+day)
	one := tx(100, wal.Change{Op: wal.Delete, Relation: r, Old: row, OldFull: true}, wal.Change{Op: wal.Insert, Relation: r, New: again})
	if err := s.Stamp(one); err != nil {
		t.Fatal(err)
	}
	if got := one.Changes[0].Stamp; got.Generation != 0 || got.Version != 6 {
		t.Errorf("delete has stamp %+v", got)
	}
	if got := one.Changes[1].Stamp; got.Generation != 1 || got.Version != 1 {
		t.Errorf("insert over the grave has stamp %+v", got)
	}
	if g, ok := x.Get(r.Ref(), []byte(`["1"]`)); !ok || g.Generation != 0 || g.LSN != 100 {
		t.Errorf("grave %+v, %v", g, ok)
	}
	// Decoded once more, after the grave is known, the stamps are the same.
	same := tx(100, wal.Change{Op: wal.Delete, Relation: r, Old: row, OldFull: true}, wal.Change{Op: wal.Insert, Relation: r, New: again})
	if err := s.Stamp(same); err != nil {
		t.Fatal(err)
	}
	for i := range same.Changes {
		if same.Changes[i].Stamp != one.Changes[i].Stamp {
			t.Errorf("change %d: %+v the first time, %+v the second", i, one.Changes[i].Stamp, same.Changes[i].Stamp)
		}
	}
	later := tx(200, wal.Change{Op: wal.Update, Relation: r, Old: again, OldFull: true, New: tuple("1", "c", "2", "2024-01-03"+day)})
	if err := s.Stamp(later); err != nil {
		t.Fatal(err)
	}
	if got := later.Changes[0]; got.Stamp.Generation != 1 || got.Base.Stamp.Generation != 1 || got.Old != nil {
		t.Errorf("update of the second life: %+v", got)
	}
}

func TestStamperLiftsWhatDoesNotRise(t *testing.T) {
	t.Parallel()
	s, _, _ := newStamper()
	r := acct()
	back := tx(100, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "z", "5", "2024-01-05"+day), OldFull: true, New: tuple("1", "a", "1", "2024-01-01"+day)})
	if err := s.Stamp(back); err != nil {
		t.Fatal(err)
	}
	if got := back.Changes[0].Stamp; got.Generation != 1 || s.Lifted != 1 {
		t.Errorf("stamp %+v, lifted %d", got, s.Lifted)
	}
}

func TestStamperSplitsChangesOfTheKey(t *testing.T) {
	t.Parallel()
	s, _, _ := newStamper()
	r := acct()
	move := tx(100, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "a", "1", "2024-01-01"+day), OldFull: true, New: tuple("2", "a", "2", "2024-01-02"+day)})
	if err := s.Stamp(move); err != nil {
		t.Fatal(err)
	}
	if len(move.Changes) != 2 || move.Changes[0].Op != wal.Delete || move.Changes[1].Op != wal.Insert {
		t.Fatalf("changes %+v", move.Changes)
	}
}

func TestStamperGivesTimesToTablesWithoutStamps(t *testing.T) {
	t.Parallel()
	s, _, c := newStamper()
	r := plain()
	c.Observe(900_000) // a peer's clock is ahead
	one := tx(100, wal.Change{Op: wal.Insert, Relation: r, New: tuple("1", "a")}, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "a"), OldFull: true, New: tuple("1", "b")})
	if err := s.Stamp(one); err != nil {
		t.Fatal(err)
	}
	first, second := one.Changes[0].Stamp.UpdatedAt, one.Changes[1].Stamp.UpdatedAt
	if first <= 900_000 || second <= first {
		t.Errorf("times %d and %d", first, second)
	}
	// Published again after the clock went on: the same times.
	c.Observe(5_000_000)
	same := tx(100, wal.Change{Op: wal.Insert, Relation: r, New: tuple("1", "a")}, wal.Change{Op: wal.Update, Relation: r, Old: tuple("1", "a"), OldFull: true, New: tuple("1", "b")})
	if err := s.Stamp(same); err != nil {
		t.Fatal(err)
	}
	if same.Changes[0].Stamp.UpdatedAt != first || same.Changes[1].Stamp.UpdatedAt != second {
		t.Errorf("times %d and %d, before %d and %d", same.Changes[0].Stamp.UpdatedAt, same.Changes[1].Stamp.UpdatedAt, first, second)
	}
}

func TestStampsForgetWhatIsConfirmed(t *testing.T) {
	t.Parallel()
	m := NewStamps()
	a, b := tx(100), tx(200)
	m.put(a, 1)
	m.put(b, 2)
	m.Confirmed(150)
	if _, ok := m.get(a); ok {
		t.Error("a confirmed transaction is kept")
	}
	if k, ok := m.get(b); !ok || k.at != 2 {
		t.Error("an unconfirmed transaction is forgotten")
	}
}

func TestClockOnlyRises(t *testing.T) {
	t.Parallel()
	var c Clock
	if a, b := c.Commit(10), c.Commit(5); a != 10 || b != 11 {
		t.Errorf("%d, then %d", a, b)
	}
	c.Observe(100)
	if got := c.Commit(20); got != 101 {
		t.Errorf("after 100 was seen: %d", got)
	}
	c.Observe(wal.MaxMicros)
	if got := c.Tick(); got != 102 {
		t.Errorf("infinity must not be taken for a time: %d", got)
	}
}
