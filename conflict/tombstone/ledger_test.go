package tombstone_test

import (
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
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
	x.SetLedgers(tombstone.Ledgers{Of: map[tombstone.Named]wal.RelationName{{Table: 1, Name: b}: a, {Table: 2, Name: a}: b}})
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
	if of, err := tombstone.ReadLedgers(t.Context(), c); err != nil || len(of.Of) > 0 {
		t.Fatalf("of an earlier program: %v, %v", err, of)
	}
	pgtest.Exec(t, c, tombstone.LedgerSchema)
	var table uint32
	if err := c.QueryRow(t.Context(), "select 'public.b'::regclass::oid").Scan(&table); err != nil {
		t.Fatal(err)
	}
	b, odd := wal.RelationName{Schema: "public", Name: "b"}, wal.RelationName{Schema: `s."`, Name: "A [7]"}
	for _, l := range []wal.RelationName{odd, b} {
		if err := tombstone.NoteLedgers(t.Context(), c, tombstone.Ledgers{Of: map[tombstone.Named]wal.RelationName{{Table: table, Name: b}: l, {Table: 1, Name: b}: b}}); err != nil {
			t.Fatal(err)
		}
	}
	if of, err := tombstone.ReadLedgers(t.Context(), c); err != nil || of.Of[tombstone.Named{Table: table, Name: b}] != odd || len(of.Of) != 2 {
		t.Errorf("%v, %v", err, of)
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
		if of, err := tombstone.ReadLedgers(t.Context(), c); err != nil || len(of.Of) != step.want {
			t.Errorf("older than %q are gone, if their tables are: %v, %v", step.age, of, err)
		}
	}
}

// TestCopiedLedger: what is known of own changes that are not merged is known in a ledger that is begun as a copy, too, as it was in the other one: in front of the copy, and where the index has no room
// for it. What is noted later in one of the two is in that one.
func TestCopiedLedger(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	was, is, own := wal.RelationName{Schema: "public", Name: "t"}, wal.RelationName{Schema: "public", Name: "t_old"}, wal.RelationName{Schema: "public", Name: "t_old [1]"}
	x.LimitOwn(3)
	note := func(rel wal.RelationName, key string, at wal.LSN, next uint32) {
		x.Note(rel, []byte(key), tombstone.Place{Commit: at}, conflict.Item{Next: next})
	}
	of := func(rel wal.RelationName, key string, at wal.LSN) (next uint32, waits bool) {
		items := make([]conflict.Item, 1)
		_, wait := x.Below(at, []tombstone.Ref{{Relation: rel, Key: key}}, items)
		return items[0].Next, wait != nil
	}
	note(was, "a", 100, 1)
	note(wal.RelationName{Schema: "public", Name: "u"}, "a", 100, 9)
	note(was, "a", 200, 2)
	note(was, "b", 300, 3) // beyond the limit
	x.Truncated(was, tombstone.Place{Commit: 150})
	said := tombstone.Ledgers{
		Of:   map[tombstone.Named]wal.RelationName{{Table: 1, Name: was}: was, {Table: 1, Name: is}: own},
		Also: map[tombstone.Named][]wal.RelationName{{Table: 1, Name: was}: {own}},
	}
	for range 2 { // it is told again and again
		x.SetLedgers(said)
	}
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "id", ID: wal.ColumnID(1, 1)}}}
	if also := x.Also(rel); len(also) != 1 || also[0] != own || x.Own(rel) != was {
		t.Errorf("%s, and also %v", x.Own(rel), also)
	}
	x.Put(was, []byte("c"), conflict.Item{LSN: 50, Next: 7})
	for _, c := range []struct {
		rel   wal.RelationName
		key   string
		at    wal.LSN
		next  uint32
		waits bool
	}{{was, "a", 150, 1, false}, {own, "a", 150, 1, false}, {own, "a", 250, 2, false}, {own, "a", 100, 0, false}, {own, "b", 400, 0, true}, {was, "b", 400, 0, true}, {own, "c", 400, 0, false}, {own, "d", 400, 0, false}, {is, "a", 400, 0, false}} {
		if next, waits := of(c.rel, c.key, c.at); next != c.next || waits != c.waits {
			t.Errorf("%s of %s at %s: %d, %t, want %d, %t", c.key, c.rel, c.at, next, waits, c.next, c.waits)
		}
	}
	if !x.Noted(own, "a") || !x.May(own, []byte("b")) || x.May(own, []byte("c")) || !x.Later(own, []byte("a"), tombstone.Place{Commit: 150}) || !x.Perhaps(own, []byte("b"), tombstone.Place{Commit: 150}) ||
		!x.Cut(own, tombstone.Place{Commit: 120}) {
		t.Error("who asks by the ledger that was copied does not know of own changes")
	}
	x.Merged(150)
	if next, _ := of(own, "a", 250); next != 2 || !x.Noted(own, "a") {
		t.Errorf("the second change waits: %d", next)
	}
	x.Merged(1000)
	if x.Noted(own, "a") || x.Noted(was, "a") || x.May(own, []byte("b")) || x.Waiting() != 0 {
		t.Error("all is merged")
	}
}

// TestTakeLedgers: an index that is in use takes in what the table has of a ledger that was begun as a copy, and nothing that has come to the other one since. To read all tombstones once more leaves alone which
// ledgers there are.
func TestTakeLedgers(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", tombstone.Schema, tombstone.PastSchema, tombstone.LedgerSchema, `insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, lsn, plain)
values ('public.t', 'a', 1, 2, 3, false, '0/50', false), ('public.t', 'p', -1, 0, 4, true, '0/50', true), ('public.u', 'a', 8, 8, 8, false, '0/50', false)`,
		`insert into pgwaltz.past (relation, key, lsn, next, at, live) values ('public.t', 'a', '0/40', 1, 2, true)`)
	x := tombstone.NewIndex(0)
	if err := tombstone.Load(t.Context(), c, x); err != nil {
		t.Fatal(err)
	}
	was, is, own := wal.RelationName{Schema: "public", Name: "t"}, wal.RelationName{Schema: "public", Name: "t_old"}, wal.RelationName{Schema: "public", Name: "t_old [1]"}
	said := tombstone.Ledgers{
		Of:   map[tombstone.Named]wal.RelationName{{Table: 1, Name: was}: was, {Table: 1, Name: is}: own},
		Also: map[tombstone.Named][]wal.RelationName{{Table: 1, Name: was}: {own}},
	}
	for range 2 {
		if err := tombstone.NoteLedgers(t.Context(), c, said); err != nil {
			t.Fatal(err)
		}
		if err := tombstone.CopyLedger(t.Context(), c, was, own); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Exec(t, c, "insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, lsn) values ('public.t', 'z', 1, 2, 3, false, '0/60')")
	read, err := tombstone.ReadLedgers(t.Context(), c)
	if err != nil || !reflect.DeepEqual(read, said) {
		t.Fatalf("%v, %v", read, err)
	}
	if err := tombstone.TakeLedgers(t.Context(), c, x, read); err != nil {
		t.Fatal(err)
	}
	if !x.Any(own) || !x.May(own, []byte("a")) || x.May(own, []byte("z")) || x.Ledger(1, is) != own {
		t.Error("what was copied is not known")
	}
	items := make([]conflict.Item, 1)
	if missing, _ := x.Below(0x100, []tombstone.Ref{{Relation: own, Key: "a"}}, items); len(missing) > 0 || items[0].Next != 2 || items[0].LSN != 0x50 {
		t.Errorf("%v, %v", items[0], missing)
	}
	if e, err := tombstone.Read(t.Context(), c, own, []string{"a", "p", "z"}); err != nil || len(e) != 2 || !e["p"].Plain || e["p"].At != 4 || e["a"].Stamp != (wal.Stamp{Generation: 1, Version: 2, UpdatedAt: 3}) {
		t.Errorf("%v, %v", e, err)
	}
	pgtest.Exec(t, c, "delete from pgwaltz.ledger")
	if err := tombstone.Load(t.Context(), c, x); err != nil || x.Ledger(1, is) != own || !x.May(own, []byte("a")) {
		t.Errorf("%v, %s", err, x.Ledger(1, is))
	}
	// A table of an earlier program has no such column.
	pgtest.Exec(t, c, "alter table pgwaltz.ledger drop also", "insert into pgwaltz.ledger values (1, 'public', 't', 'public.t')")
	if read, err := tombstone.ReadLedgers(t.Context(), c); err != nil || len(read.Of) != 1 || len(read.Also) != 0 {
		t.Errorf("%v, %v", read, err)
	}
}
