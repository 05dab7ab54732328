package copy

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The copies of a resync are made once more for a peer that begins anew, unless it had them when it found
// its gap; copies that a region began by itself are not.
func TestCopiesOfAResyncAreMadeOnceMore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, "create table had(id int)", "create table missed(id int)", "create table nothing(id int)", "create table open(id int)", "create table begun(id int)",
		"create publication p for table had, missed, nothing, open, begun")
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Request(ctx, tx, "p", nil); n != 5 || err != nil {
		t.Fatalf("%d tables, %v", n, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c,
		"update pgwaltz.copy set state = 'done', sent_incarnation = 3, sent_frame = 7, last_key = 'k', applied_key = 'k', applied_at = now()",
		"update pgwaltz.copy set sent_frame = 8 where table_name = 'missed'",
		"update pgwaltz.copy set state = 'running', last_key = null, applied_key = null, sent_incarnation = null, sent_frame = null, applied_at = null where table_name in ('nothing', 'open')",
		RequestSQL([]wal.RelationName{{Schema: "public", Name: "begun"}}), "update pgwaltz.copy set state = 'done', sent_incarnation = 4, sent_frame = 1, applied_at = now() where table_name = 'begun'")
	jobs, err := Load(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range jobs {
		if jobs[i].Table.Name == "nothing" {
			if err := saveEnd(ctx, c, &jobs[i], Done, "", Place{3, 8}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := CopyBack(ctx, c, Place{3, 7}); n != 3 || err != nil {
		t.Errorf("%d tables, %v", n, err)
	}
	if got := open(t, c); got != "missed nothing open" {
		t.Errorf("copied once more: %s", got)
	}
	// A region that asks by itself meanwhile does not make it less of a resync.
	pgtest.Exec(t, c, RequestSQL([]wal.RelationName{{Schema: "public", Name: "open"}}))
	if n, err := CopyBack(ctx, c, Place{9, 9}); n != 3 || err != nil {
		t.Errorf("once more: %d tables, %v", n, err)
	}
}

// open names the tables that are to be copied.
func open(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	jobs, err := Load(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range jobs {
		if jobs[i].Open() {
			names = append(names, jobs[i].Table.Name)
		}
	}
	return strings.Join(names, " ")
}

// A table whose tombstones are under way when its rows have all arrived is not done yet: the stream may
// still lose them.
func TestACopyIsNotWholeBeforeItsTombstonesHaveArrived(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	table := wal.RelationName{Schema: "public", Name: "orders"}
	pgtest.Exec(t, c, "create schema pgwaltz", Schema, "create table pgwaltz.stream (incarnation bigint)", "insert into pgwaltz.stream values (3)", RequestSQL([]wal.RelationName{table}))
	j := jobOf(t, c)
	for i, cursor := range []string{"a", deadCursor + "k"} {
		before := j.LastKey
		j.LastKey, j.Rows = &cursor, 10
		if err := saveSent(ctx, c, &j, before, Place{3, uint64(5 + i)}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := saveApplied(ctx, c, table, sent{Place{3, 5}, j.LastKey, 10, j.Requested}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := saveEnd(ctx, c, &j, Done, "", Place{3, 6}); err != nil {
		t.Fatal(err)
	}
	if jobOf(t, c).Whole {
		t.Error("whole before every peer has the tombstones")
	}
	if n, err := Reopened(ctx, c, Place{3, 5}); n != 1 || err != nil {
		t.Errorf("the stream lost the tombstones: %d put back, %v", n, err)
	}
}
