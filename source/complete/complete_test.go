package complete

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

// newer makes a completer of tables that are ordered by version; the table timed has no stamp columns.
func newer(conn *pgx.Conn) *Completer {
	return New(func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error { return f(ctx, conn) },
		func(rel *wal.Relation) (conflict.Policy, bool) {
			return conflict.Policy{Order: conflict.VersionFirst}, rel.Name == "timed"
		})
}

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

func text(vals ...string) wal.Tuple {
	t := make(wal.Tuple, len(vals))
	for i, v := range vals {
		switch v {
		case "<null>":
			t[i].Kind = wal.Null
		case "<same>":
			t[i].Kind = wal.Unchanged
		default:
			t[i] = wal.Value{Kind: wal.Text, Bytes: []byte(v)}
		}
	}
	return t
}

func show(t wal.Tuple) string {
	var out []string
	for _, v := range t {
		switch v.Kind {
		case wal.Null:
			out = append(out, "<null>")
		case wal.Unchanged:
			out = append(out, "<same>")
		case wal.Digest:
			name := "<unknown digest>"
			for _, text := range []string{"BIG", "NEW", "B", `{"a": 1}`} {
				if v.Names(wal.Value{Kind: wal.Text, Bytes: []byte(text)}) {
					name = "#" + text
				}
			}
			out = append(out, name)
		default:
			out = append(out, string(v.Bytes))
		}
	}
	return strings.Join(out, "|")
}

// complete does what the outbound pipe does, but for the stamps.
func complete(t *testing.T, c *Completer, tx *wal.Transaction) error {
	t.Helper()
	if err := c.Complete(t.Context(), tx); err != nil {
		return err
	}
	var out []wal.Change
	for _, ch := range tx.Changes {
		if del, ins, ok := conflict.SplitKeyChange(ch); ok {
			out = append(out, del, ins)
		} else {
			out = append(out, ch)
		}
	}
	tx.Changes = out
	return c.Values(t.Context(), []*wal.Transaction{tx})
}

// TestComplete asks a real server for what the WAL leaves out.
func TestComplete(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create extension citext`, `create schema pgwaltz`, tombstone.Schema,
		`create table public.doc (k public.citext primary key, v text, big text)`,
		`insert into public.doc values ('Here', 'v1', 'BIG'), ('moved', 'v9', 'NEW'), ('New', 'n', 'B')`,
		`create table public.gen (a int, k int generated always as (a * 2) stored primary key, v text)`,
		`set search_path = ''`)
	c := newer(conn)
	doc := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: []wal.Column{
		{Name: "k", OID: 99999, Key: true}, {Name: "v", OID: 25}, {Name: "big", OID: 25}}}
	gen := &wal.Relation{Schema: "public", Name: "gen", Identity: wal.IdentityFull, Columns: []wal.Column{
		{Name: "a", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
	for _, rel := range []*wal.Relation{doc, gen} {
		if err := c.Describe(t.Context(), rel); err != nil {
			t.Fatal(err)
		}
	}
	if len(gen.Columns) != 3 || gen.PrimaryKey[0] != 2 || !doc.Asks() {
		t.Fatalf("described as %+v and %+v", gen, doc)
	}
	tx := &wal.Transaction{XID: 3, Changes: []wal.Change{
		{Op: wal.Update, Relation: doc, New: text("Here", "v1", "<same>")},
		{Op: wal.Update, Relation: doc, New: text("moved", "v2", "<same>")},
		{Op: wal.Update, Relation: doc, New: text("gone", "v3", "<same>")},
		{Op: wal.Update, Relation: doc, Old: text("old", "<null>", "<null>"), New: text("gone", "v4", "<same>")},
		{Op: wal.Update, Relation: doc, Old: text("GONE", "<null>", "<null>"), New: text("gone", "v5", "<same>")},
		{Op: wal.Update, Relation: doc, Old: text("older", "<null>", "<null>"), New: text("New", "n", "<same>")},
		{Op: wal.Delete, Relation: doc, Old: text("Dead", "<null>", "<null>")},
		{Op: wal.Insert, Relation: gen, New: text("7", "x", "<null>")},
		{Op: wal.Update, Relation: gen, Old: text("7", "x", "<null>"), OldFull: true, New: text("8", `q"\`, "<null>")},
		{Op: wal.Truncate, Relation: doc},
	}}
	if err := complete(t, c, tx); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		line := fmt.Sprintf("%s old %s new %s", ch.Op, show(ch.Old), show(ch.New))
		if ch.Op != wal.Truncate {
			line += " key " + string(ch.AppendKey(nil))
		}
		got = append(got, line)
	}
	want := []string{
		`update old  new Here|v1|#BIG key ["here"]`,
		`update old  new moved|v2|#NEW key ["moved"]`,
		`delete old old|<null>|<null> new  key ["old"]`,
		`delete old older|<null>|<null> new  key ["older"]`,
		`insert old  new New|n|B key ["new"]`,
		`delete old Dead|<null>|<null> new  key ["dead"]`,
		`insert old  new 7|x|14 key ["14"]`,
		`delete old 7|x|14 new  key ["14"]`,
		`insert old  new 8|q"\|16 key ["16"]`,
		`truncate old  new `,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDigests: what a receiver computes of its own row, and of what the origin sends whole, is the
// same, whatever the type; NULL has none, and what cannot be read goes out as it is.
func TestDigests(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create table public.doc (id int primary key, v text, j jsonb, b bytea, x varchar(20))`,
		`insert into public.doc values (1, 'é', '{"a":1}', '\x00ff', 'x'), (2, null, null, null, null)`, `set search_path = ''`)
	c := newer(conn)
	describe := func(columns ...wal.Column) *wal.Relation {
		rel := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: append([]wal.Column{{Name: "id", OID: wal.OIDInt4, Key: true}}, columns...)}
		if err := c.Describe(t.Context(), rel); err != nil {
			t.Fatal(err)
		}
		return rel
	}
	doc := describe(wal.Column{Name: "v", OID: wal.OIDText}, wal.Column{Name: "j", OID: wal.OIDJSONB}, wal.Column{Name: "b", OID: wal.OIDBytea}, wal.Column{Name: "x", OID: wal.OIDVarchar})
	gone := describe(wal.Column{Name: "dropped", OID: wal.OIDText})
	tx := &wal.Transaction{XID: 3, Changes: []wal.Change{
		{Op: wal.Update, Relation: doc, New: text("1", "<same>", "<same>", "<same>", "<same>")},
		{Op: wal.Update, Relation: doc, New: text("2", "<same>", "<same>", "b", "<same>")},
	}}
	if err := complete(t, c, tx); err != nil {
		t.Fatal(err)
	}
	here := text("1", "é", `{"a": 1}`, `\x00ff`, "x")
	if got := tx.Changes[0].New; got.Complete() || show(got.Filled(here)) != show(here) {
		t.Errorf("the digests are not those of the row: %s", show(got.Filled(here)))
	}
	if got := show(tx.Changes[1].New); got != "2|<same>|<same>|b|<same>" {
		t.Errorf("of a row of NULLs: %s", got)
	}
	lost := &wal.Transaction{XID: 3, Changes: []wal.Change{{Op: wal.Update, Relation: gone, New: text("1", "<same>")}}}
	if err := complete(t, c, lost); err != nil || show(lost.Changes[0].New) != "1|<same>" {
		t.Errorf("of a table that is another one by now: %v, %s", err, show(lost.Changes[0].New))
	}
}

// TestMovedKeysAreBounded: rows under a new key are read whole, within bounds.
func TestMovedKeysAreBounded(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create table public.doc (id int primary key, big text)`,
		`insert into public.doc select i, repeat('x', 200000) from generate_series(1, 100) i`, `set search_path = ''`)
	c := newer(conn)
	doc := &wal.Relation{Schema: "public", Name: "doc", Identity: wal.IdentityDefault, Columns: []wal.Column{{Name: "id", OID: wal.OIDInt4, Key: true}, {Name: "big", OID: wal.OIDText}}}
	if err := c.Describe(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	tx := &wal.Transaction{XID: 3}
	for i := range 100 {
		tx.Changes = append(tx.Changes, wal.Change{Op: wal.Update, Relation: doc, Old: text(fmt.Sprint(1000+i), "<null>"), New: text(fmt.Sprint(i+1), "<same>")})
	}
	if err := complete(t, c, tx); err != nil {
		t.Fatal(err)
	}
	whole, digests := 0, 0
	for _, ch := range tx.Changes {
		if ch.Op == wal.Delete {
			continue
		}
		switch ch.New[1].Kind {
		case wal.Text:
			whole += len(ch.New[1].Bytes)
		case wal.Digest:
			digests++
		}
	}
	if whole < wholeBytes || whole > wholeBytes+wholeRows*200000 || digests == 0 {
		t.Errorf("%d bytes were read whole, %d rows have digests", whole, digests)
	}
}

// TestCompleteWithoutTheOldRow: a delete of which the WAL does not say which row it removed is left out.
func TestCompleteWithoutTheOldRow(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create table public.gen (a int, k int generated always as (a * 2) stored primary key)`)
	c := newer(conn)
	gen := &wal.Relation{Schema: "public", Name: "gen", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 23, Key: true}}}
	if err := c.Describe(t.Context(), gen); err != nil {
		t.Fatal(err)
	}
	told := ""
	c.Nameless = func(rel *wal.Relation, op wal.Op) { told = op.String() + " of " + rel.Name }
	tx := &wal.Transaction{XID: 3, Changes: []wal.Change{{Op: wal.Delete, Relation: gen, Old: text("1", "<null>")}, {Op: wal.Insert, Relation: gen, New: text("2", "<null>")}}}
	if err := c.Complete(t.Context(), tx); err != nil || len(tx.Changes) != 1 || told != "delete of gen" {
		t.Errorf("got %v, %d changes, told of a %q", err, len(tx.Changes), told)
	}
}

func TestSees(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		snapshot string
		xid      wal.XID
		want     bool
	}{
		{"10:20:", 9, true}, {"10:20:", 15, true}, {"10:20:12,15", 15, false}, {"10:20:12,15", 13, true}, {"10:20:", 20, false}, {"10:20:", 25, false},
		{"4294967290:4294967300:4294967297", 1, false}, // the second epoch
		{"4294967290:4294967300:4294967297", 2, true},
		{"4294967290:4294967300:", 4294967295, true},
		{"4294967290:4294967300:", 4, false},
	} {
		got, err := sees(tt.snapshot, tt.xid)
		if err != nil || got != tt.want {
			t.Errorf("%s sees %d: %v, %v", tt.snapshot, tt.xid, got, err)
		}
	}
	for _, bad := range []string{"", "1:2", "1:x:", "1:2:y"} {
		if _, err := sees(bad, 1); err == nil {
			t.Errorf("%q is read as a snapshot", bad)
		}
	}
}

// Where a right on the function of a key is missing, somebody decides what becomes of the changes; those
// of other tables are complete.
func TestKeysThatCannotBeComputed(t *testing.T) {
	t.Parallel()
	dsn := server.Database(t)
	admin := pgtest.Connect(t, dsn)
	pgtest.Exec(t, admin, `create function public.norm(text) returns text language sql immutable as 'select pg_catalog.lower($1)'`,
		`create table public.g (id text, k text generated always as (public.norm(id)) stored primary key)`, `create table public.h (id int, k int generated always as (id) stored primary key)`,
		`revoke execute on function public.norm(text) from public`, `do $$ begin if not exists (select from pg_roles where rolname = 'unable') then create role unable; end if; end $$`,
		`grant select on public.g, public.h to unable`)
	conn := pgtest.Connect(t, dsn)
	pgtest.Exec(t, conn, `set role unable`, `set search_path = ''`)
	c := newer(conn)
	var told, left []string
	decide := false
	c.Unable = func(_ context.Context, rel *wal.Relation, _ error) (bool, error) {
		told = append(told, rel.Name)
		return decide, nil
	}
	c.Nameless = func(rel *wal.Relation, op wal.Op) { left = append(left, rel.Name) }
	g := &wal.Relation{Schema: "public", Name: "g", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "id", OID: wal.OIDText, Key: true}}}
	h := &wal.Relation{Schema: "public", Name: "h", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "id", OID: wal.OIDInt4, Key: true}}}
	for _, rel := range []*wal.Relation{g, h} {
		if err := c.Describe(t.Context(), rel); err != nil {
			t.Fatal(err)
		}
	}
	tx := func() *wal.Transaction {
		return &wal.Transaction{Changes: []wal.Change{
			{Op: wal.Insert, Relation: g, New: text("A", "<null>")}, {Op: wal.Insert, Relation: h, New: text("1", "<null>")}, {Op: wal.Insert, Relation: g, New: text("B", "<null>")}}}
	}
	if err := c.Complete(t.Context(), tx()); state(err) != "42501" {
		t.Errorf("while it is waited for: %v", err)
	}
	decide = true
	whole := tx()
	if err := c.Complete(t.Context(), whole); err != nil || len(whole.Changes) != 1 || show(whole.Changes[0].New) != "1|1" {
		t.Errorf("%v, %d changes stay", err, len(whole.Changes))
	}
	pgtest.Exec(t, admin, `grant execute on function public.norm(text) to unable`)
	whole = tx()
	if err := c.Complete(t.Context(), whole); err != nil || len(whole.Changes) != 3 {
		t.Errorf("when it is granted again: %v, %d changes stay", err, len(whole.Changes))
	}
	if fmt.Sprint(told, left) != "[g g] [g g]" {
		t.Errorf("told %v, left out %v", told, left)
	}
}
