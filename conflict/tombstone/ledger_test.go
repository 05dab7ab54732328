package tombstone_test

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestLedger: a change belongs to the ledger that its table has under the name by which it came. One of which nobody knows what its columns are, and a table of which nothing is said, go
// by the name.
func TestLedger(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	a, b := wal.RelationName{Schema: "public", Name: "a"}, wal.RelationName{Schema: "public", Name: "b"}
	of := func(table uint32, n wal.RelationName) wal.RelationName {
		return x.Own(&wal.Relation{Schema: n.Schema, Name: n.Name, Columns: []wal.Column{{Name: "id", ID: wal.ColumnID(table, 1)}}})
	}
	if x.Renamed() || of(1, b) != b {
		t.Error("a ledger that nobody has told of")
	}
	x.SetLedgers(map[tombstone.Named]wal.RelationName{{Table: 1, Name: b}: a, {Table: 2, Name: a}: b})
	for _, c := range []struct {
		table    uint32
		is, want wal.RelationName
	}{{1, a, a}, {1, b, a}, {2, a, b}, {2, b, b}, {3, a, a}, {3, b, b}} {
		if got := of(c.table, c.is); got != c.want || x.Ledger(c.table, c.is) != c.want {
			t.Errorf("table %d, called %s, has the ledger %s, want %s", c.table, c.is, got, c.want)
		}
	}
	if got := x.Own(&wal.Relation{Schema: "public", Name: "b", Columns: []wal.Column{{Name: "id"}}}); got != b {
		t.Errorf("without numbers: %s", got)
	}
	x.Reset()
	if x.Renamed() {
		t.Error("a term begins with the ledgers of the one before")
	}
}

// What is stored of ledgers stays as it is, and is there for the next process; a database of an earlier program has none.
func TestLedgersAreStored(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", tombstone.Schema, tombstone.PastSchema, `create table public.b (id int)`)
	x := tombstone.NewIndex(0)
	if err := tombstone.Load(t.Context(), c, x); err != nil || x.Renamed() {
		t.Fatalf("of an earlier program: %v, %t", err, x.Renamed())
	}
	pgtest.Exec(t, c, tombstone.LedgerSchema)
	var table uint32
	if err := c.QueryRow(t.Context(), "select 'public.b'::regclass::oid").Scan(&table); err != nil {
		t.Fatal(err)
	}
	b, odd := wal.RelationName{Schema: "public", Name: "b"}, wal.RelationName{Schema: `s."`, Name: "A [7]"}
	for _, l := range []wal.RelationName{odd, b} {
		if err := tombstone.NoteLedgers(t.Context(), c, map[tombstone.Named]wal.RelationName{{Table: table, Name: b}: l, {Table: 1, Name: b}: b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tombstone.Load(t.Context(), c, x); err != nil || x.Ledger(table, b) != odd || x.Ledger(2, b) != b {
		t.Errorf("%v, %s", err, x.Ledger(table, b))
	}
	if got, err := tombstone.LedgerOf(t.Context(), c, b); err != nil || got != odd {
		t.Errorf("%s, %v", got, err)
	}
	pgtest.Exec(t, c, "update pgwaltz.ledger set noted_at = now() - interval '2 days'")
	for _, step := range []struct {
		age  string
		want int
	}{{"3 days", 2}, {"1 day", 1}, {"", 0}} {
		if err := tombstone.ForgetLedgers(t.Context(), c, step.age); err != nil {
			t.Fatal(err)
		}
		if of, err := tombstone.Ledgers(t.Context(), c); err != nil || len(of) != step.want {
			t.Errorf("older than %q are gone, if their tables are: %v, %v", step.age, of, err)
		}
	}
}
