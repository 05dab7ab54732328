package complete

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

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
		default:
			out = append(out, string(v.Bytes))
		}
	}
	return strings.Join(out, "|")
}

// TestComplete asks a real server for what the log leaves out.
func TestComplete(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create extension citext`,
		`create table public.doc (k public.citext primary key, v text, big text)`,
		`insert into public.doc values ('Here', 'v1', 'BIG'), ('moved', 'v9', 'NEW'), ('New', 'n', 'B')`,
		`create table public.gen (a int, k int generated always as (a * 2) stored primary key, v text)`,
		`set search_path = ''`)
	c := New(func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error { return f(ctx, conn) })
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
	if err := c.Complete(t.Context(), tx); err != nil {
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
		`update old  new Here|v1|BIG key ["here"]`,
		`update old  new moved|v9|NEW key ["moved"]`, // the newer state
		`delete old old|<null>|<null> new  key ["old"]`,
		`update old older|<null>|<null> new New|n|B key ["new"]`,
		`delete old Dead|<null>|<null> new  key ["dead"]`,
		`insert old  new 7|x|14 key ["14"]`,
		`update old 7|x|14 new 8|q"\|16 key ["16"]`,
		`truncate old  new `,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestCompleteWithoutTheOldRow: the log must say which row a delete removed.
func TestCompleteWithoutTheOldRow(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, conn, `create table public.gen (a int, k int generated always as (a * 2) stored primary key)`)
	c := New(func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error { return f(ctx, conn) })
	gen := &wal.Relation{Schema: "public", Name: "gen", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 23, Key: true}}}
	if err := c.Describe(t.Context(), gen); err != nil {
		t.Fatal(err)
	}
	err := c.Complete(t.Context(), &wal.Transaction{XID: 3, Changes: []wal.Change{{Op: wal.Delete, Relation: gen, Old: text("1", "<null>")}}})
	if err == nil || !strings.Contains(err.Error(), "replica identity full") {
		t.Errorf("got %v", err)
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
