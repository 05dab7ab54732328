package copy

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

func jobOf(t *testing.T, c *pgx.Conn) Job {
	t.Helper()
	jobs, err := Load(t.Context(), c)
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%v: %d jobs", err, len(jobs))
	}
	return jobs[0]
}

// A copy moves on with what is in the stream, and goes back to what every peer has when the
// stream loses the rest.
func TestCopiesGoBackToWhatThePeersHave(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	table := wal.RelationName{Schema: "public", Name: "orders"}
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, "create table pgwaltz.stream (incarnation bigint)", "insert into pgwaltz.stream values (3)", RequestSQL([]wal.RelationName{table}))
	j := jobOf(t, c)
	send := func(cursor string, rows int64, at Place) error {
		before := j.LastKey
		j.LastKey, j.Rows = &cursor, rows
		return saveSent(ctx, c, &j, before, at)
	}
	for _, err := range []error{send("a", 10, Place{3, 5}), send("b", 20, Place{3, 6}), send("c", 25, Place{3, 7}), saveEnd(ctx, c, &j, Done, "", Place{3, 9})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	first := "a"
	if err := saveApplied(ctx, c, table, sent{Place{3, 5}, &first, 10, j.Requested}); err != nil {
		t.Fatal(err)
	}
	if got := jobOf(t, c); got.State != Done || got.Rows != 25 || got.Applied != 10 {
		t.Errorf("sent: %+v", got)
	}
	if n, err := Reopened(ctx, c, Place{3, 7}); n != 0 || err != nil {
		t.Errorf("the stream holds everything: %d put back, %v", n, err)
	}
	if n, err := Reopened(ctx, c, Place{3, 6}); n != 1 || err != nil {
		t.Errorf("the stream lost the last chunk: %d put back, %v", n, err)
	}
	if got := jobOf(t, c); got.State != Running || got.Rows != 10 || *got.LastKey != "a" {
		t.Errorf("put back: %+v", got)
	}
	if err := send("d", 30, Place{3, 8}); !errors.Is(err, errMoved) {
		t.Errorf("a chunk of a copy that was put back: %v", err)
	}
	j = jobOf(t, c)
	if err := send("b", 20, Place{2, 9}); !errors.Is(err, errMoved) {
		t.Errorf("a chunk in an incarnation that is over: %v", err)
	}
	j = jobOf(t, c)
	if err := send("c", 25, Place{3, 9}); err != nil {
		t.Fatal(err)
	}
	if err := saveEnd(ctx, c, &j, Done, "", Place{3, 9}); err != nil {
		t.Fatal(err)
	}
	if err := Finish(ctx, c, Place{3, 9}); err != nil {
		t.Fatal(err)
	}
	if n, err := Reopened(ctx, c, Place{4, 0}); n != 0 || err != nil {
		t.Errorf("every peer has it: %d put back, %v", n, err)
	}
	if got := jobOf(t, c); got.State != Done || got.Applied != 25 {
		t.Errorf("finished: %+v", got)
	}
}

func TestWritersOfATableAndItsPartitions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dsn := server.Database(t)
	c, open := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	pgtest.Exec(t, c, "create table p (id int) partition by list (id)", "create table p1 partition of p for values in (1)", "create table other (id int)")
	table := wal.RelationName{Schema: "public", Name: "p"}
	for sql, want := range map[string]int{"insert into p1 values (1)": 1, "select * from p1": 0, "insert into other values (1)": 0} {
		pgtest.Exec(t, open, "begin", sql)
		got, err := writers(ctx, c, table)
		if err != nil || len(got) != want {
			t.Errorf("%s: %v, %v", sql, got, err)
		}
		pgtest.Exec(t, open, "rollback")
	}
	if got := both([]string{"3/1", "4/9"}, []string{"4/9", "5/2"}); len(got) != 1 || got[0] != "4/9" {
		t.Errorf("got %v", got)
	}
}

// Behind the rows the tombstones are copied, but for those that have a row and those whose key
// their text does not tell.
func TestTombstonesAreReadBehindTheRows(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", tombstone.Schema, "create table public.k (name text, id int, v text, primary key (id, name))", "insert into public.k values ('there', 3, '')",
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, lsn) values
('public.k', '["1","gone"]', 2, 7, 1000, false, '0/1'), ('public.k', '["2","lives"]', 0, 1, 1, true, '0/1'), ('public.k', '["3","there"]', 0, 1, 1, false, '0/1'),
('public.k', '#00', 0, 1, 1, false, '0/1'), ('public.k', '["4","o''neil \"x\""]', 0, 8, 1, false, '0/1'), ('public.other', '["5","y"]', 0, 1, 1, false, '0/1')`)
	p, err := newPlan(ctx, c, wal.RelationName{Schema: "public", Name: "k"}, func(wal.RelationName) StampColumns { return StampColumns{} }, tombstone.Tracked{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]wal.Stamp{}
	after, pages := "", 0
	for {
		read, last, err := p.readDead(ctx, c, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i := range read.tx.Changes {
			ch := &read.tx.Changes[i]
			if ch.Op != wal.Delete || ch.Old[2].Kind != wal.Null {
				t.Errorf("got %+v", ch)
			}
			got[string(ch.AppendKey(nil))] = ch.Stamp
		}
		after, pages = last, pages+1
		if read.count < 2 {
			break
		}
	}
	want := map[string]wal.Stamp{`["1","gone"]`: {Generation: 2, Version: 7, UpdatedAt: 1000}, `["4","o'neil \"x\""]`: {Version: 8, UpdatedAt: 1}}
	if !maps.Equal(got, want) || pages != 3 {
		t.Errorf("%d pages: %v", pages, got)
	}
	cursor := deadCursor + after
	if back, ok := parseDead(&cursor); !ok || back != after || parseCursor(&cursor, 2) != nil {
		t.Errorf("the cursor %q is read as %q, %v", cursor, back, ok)
	}
}
