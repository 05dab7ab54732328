package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Which columns stand for each other is written with the first transaction of a table, and not with every later one again.
func TestColumnsAreMatchedOnce(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	for i := range r.Columns {
		r.Columns[i].ID = wal.ColumnID(777, int16(i+1))
	}
	const written = "select count(*), min(xmin::text), max(xmin::text) from pgwaltz.counterpart"
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	before := b.query(written)
	b.want("select count(*) from pgwaltz.counterpart", "4")
	b.apply(b.tx(nil, insert(r, row("2", "a", 1, 1))))
	b.apply(b.tx(nil, remove(r, row("1", "a", 1, 1))))
	b.want(written, before)
}
