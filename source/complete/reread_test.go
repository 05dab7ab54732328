package complete

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A row that cannot be read back holds nothing up: the change goes out as it is.
func TestUnreadableRowGoesOutAsItIs(t *testing.T) {
	t.Parallel()
	dsn := server.Database(t)
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	pgtest.Exec(t, conn, `create table public.doc (k text primary key, v text, big text)`, `insert into public.doc values ('here', 'v1', 'BIG')`,
		`create role reader`, `grant select on public.doc to reader`, `set search_path = ''`)
	c := newer(conn)
	doc := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: []wal.Column{
		{Name: "k", OID: 25, Key: true}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
	if err := c.Describe(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	complete := func() string {
		t.Helper()
		tx := &wal.Transaction{XID: 3, Changes: []wal.Change{{Op: wal.Update, Relation: doc, New: text("here", "v2", "<same>")}}}
		if err := c.Values(t.Context(), []*wal.Transaction{tx}); err != nil {
			t.Fatal(err)
		}
		if len(tx.Changes) != 1 {
			t.Fatal("the change is gone")
		}
		return show(tx.Changes[0].New)
	}
	const whole, part = "here|v2|#BIG", "here|v2|<same>"
	if got := complete(); got != whole {
		t.Errorf("readable: %s", got)
	}

	pgtest.Exec(t, other, `begin`, `lock table public.doc in access exclusive mode`)
	if got := complete(); got != part {
		t.Errorf("locked: %s", got)
	}
	began := time.Now()
	if got := complete(); got != part || time.Since(began) > 2*time.Second {
		t.Errorf("still locked: %s after %s", got, time.Since(began))
	}
	pgtest.Exec(t, other, `rollback`)
	if got := complete(); got != whole {
		t.Errorf("free again: %s", got)
	}

	pgtest.Exec(t, conn, `set role reader`)
	pgtest.Exec(t, other, `revoke select on public.doc from reader`)
	if got := complete(); got != part {
		t.Errorf("without the right: %s", got)
	}
	pgtest.Exec(t, conn, `reset role`)
	pgtest.Exec(t, conn, `alter table public.doc alter k type int using pg_catalog.length(k)`)
	if got := complete(); got != part {
		t.Errorf("another key: %s", got)
	}
}

// Several transactions are completed at once: each keeps its own changes, and loses those whose row
// is gone.
func TestValuesOfSeveralTransactions(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create schema pgwaltz`, tombstone.Schema, `create table public.doc (k text primary key, v text, big text)`,
		`insert into public.doc values ('one', 'v1', 'BIG'), ('two', 'v1', 'NEW')`, `set search_path = ''`)
	c := newer(conn)
	doc := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: []wal.Column{
		{Name: "k", OID: 25, Key: true}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
	if err := c.Describe(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	change := func(k, v, big string) wal.Change {
		return wal.Change{Op: wal.Update, Relation: doc, New: text(k, v, big)}
	}
	txs := []*wal.Transaction{
		{XID: 3, Changes: []wal.Change{change("one", "a", "<same>"), change("gone", "a", "<same>")}},
		{XID: 4, Changes: []wal.Change{change("one", "b", "B")}},
		{XID: 5, Changes: []wal.Change{change("gone", "b", "<same>")}},
		{XID: 6, Changes: []wal.Change{change("two", "c", "<same>"), change("one", "d", "<same>")}},
	}
	if err := c.Values(t.Context(), txs); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, tx := range txs {
		for _, ch := range tx.Changes {
			got += show(ch.New) + " "
		}
		got += "/ "
	}
	if want := "one|a|#BIG / one|b|B / / two|c|#NEW one|d|#BIG / "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A change whose row is gone is left out, because the row's delete follows or beats it. Where a
// tombstone below the change stands, another region's change was written over the row before this
// one was known: no delete follows, and the change goes out without the values.
func TestRowsThatOthersDeleted(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create schema pgwaltz`, tombstone.Schema, `create table public.doc (k text primary key, v text, big text)`,
		`insert into public.doc values ('here', 'v', 'BIG')`,
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, lsn) values
			('public.doc', '["lower"]', 0, 7, 7, false, '0/1'), ('public.doc', '["higher"]', 1, 3, 3, false, '0/1'), ('public.doc', '["same"]', 1, 2, 2, false, '0/1'),
			('public.doc', '["live"]', 0, 1, 1, true, '0/1'), ('public.doc', '["here"]', 0, 7, 7, false, '0/1'), ('public.other', '["none"]', 0, 7, 7, false, '0/1')`,
		`set search_path = ''`)
	c := newer(conn)
	doc := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: []wal.Column{
		{Name: "k", OID: 25, Key: true}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
	if err := c.Describe(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	for _, op := range []wal.Op{wal.Insert, wal.Update} {
		tx := &wal.Transaction{XID: 3, CommitTime: 9}
		for _, k := range []string{"lower", "higher", "none", "same", "live", "here", "lower"} {
			tx.Changes = append(tx.Changes, wal.Change{Op: op, Relation: doc, New: text(k, "a", "<same>"), Stamp: wal.Stamp{Generation: 1, Version: 2, UpdatedAt: 2}})
		}
		if err := c.Values(t.Context(), []*wal.Transaction{tx}); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, ch := range tx.Changes {
			got += show(ch.New) + " "
		}
		here := map[wal.Op]string{wal.Insert: "BIG", wal.Update: "#BIG"}[op]
		if want := "lower|a|<same> same|a|<same> here|a|" + here + " lower|a|<same> "; got != want {
			t.Errorf("%s: got  %s\nwant %s", op, got, want)
		}
	}
}

// A time that was lifted above its commit time goes out though the row is gone, and so does a change in a
// generation above all that was known: later ones of the key are above it.
func TestLiftedTimesGoOut(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create schema pgwaltz`, tombstone.Schema, `create table public.timed (k text primary key, v text, big text)`, `set search_path = ''`)
	c := newer(conn)
	timed := &wal.Relation{Schema: "public", Name: "timed", Identity: wal.IdentityDefault, Columns: []wal.Column{
		{Name: "k", OID: 25, Key: true}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
	if err := c.Describe(t.Context(), timed); err != nil {
		t.Fatal(err)
	}
	tx := &wal.Transaction{XID: 3, CommitTime: 9}
	for _, at := range []wal.Micros{9, 10} {
		tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: timed, New: text("gone", at.String(), "<same>"), Stamp: wal.Stamp{Version: wal.NullVersion, UpdatedAt: at}})
	}
	tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: timed, New: text("gone", "raised", "<same>"), Raised: true,
		Stamp: wal.Stamp{Generation: 4, Version: wal.NullVersion, UpdatedAt: 9}})
	if err := c.Values(t.Context(), []*wal.Transaction{tx}); err != nil {
		t.Fatal(err)
	}
	if len(tx.Changes) != 2 || tx.Changes[0].Stamp.UpdatedAt != 10 || !tx.Changes[1].Raised {
		t.Errorf("went out: %v", tx.Changes)
	}
}

// The snapshot sees each of the transactions.
func TestHides(t *testing.T) {
	t.Parallel()
	if x, err := hides("10:20:12,15", []wal.XID{11, 13, 15}); err != nil || x == nil || *x != 15 {
		t.Errorf("%v, %v", x, err)
	}
	if x, err := hides("10:20:12,15", []wal.XID{11, 13}); err != nil || x != nil {
		t.Errorf("%v, %v", x, err)
	}
}
