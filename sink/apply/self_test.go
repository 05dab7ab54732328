package apply

import (
	"strconv"
	"testing"
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
