package apply

import (
	"context"
	"strconv"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestApplierKnowsItsOwnRows: a row of the open transaction, or of a subtransaction of it, was
// not written by an application.
func TestApplierKnowsItsOwnRows(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL)
	b.exec("insert into public.acct values (1, 'other', 1, now())")
	ctx, c := t.Context(), b.a.conn
	for _, sql := range []string{"begin", "insert into public.acct values (2, 'mine', 1, now())", "savepoint s", "insert into public.acct values (3, 'mine', 1, now())", "release savepoint s"} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[int]bool{1: false, 2: true, 3: true} {
		var xmin string
		if err := c.QueryRow(ctx, "select xmin::text from public.acct where id = $1", id).Scan(&xmin); err != nil {
			t.Fatal(err)
		}
		xid, err := strconv.ParseUint(xmin, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.a.wroteIt(ctx, uint32(xid)); got != want || err != nil {
			t.Errorf("row %d: %v, %v", id, got, err)
		}
	}
}

// TestSelfMergeDoesNotWaitForItself: where stamping waits for own changes behind the ones in hand,
// the items of these are written once, and then it is decided about them.
func TestSelfMergeDoesNotWaitForItself(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL)
	asked := 0
	b.a.cfg.WaitStamped = func(context.Context) (*tombstone.Snapshot, error) {
		if asked++; asked > 5 {
			t.Fatal("it waits for itself")
		}
		return &tombstone.Snapshot{}, tombstone.ErrStalled
	}
	if err := b.a.waitOrRecord(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("it asked %d times", asked)
	}
	stamped, err := b.a.isStamped(t.Context(), nil, nil, 0, &known{row: wal.Tuple{}})
	if !stamped || err != nil {
		t.Errorf("the changes are not decided about: %v, %v", stamped, err)
	}
}
