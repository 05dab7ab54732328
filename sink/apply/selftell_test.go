package apply

import (
	"context"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
)

// What the self-merge undoes is told to the others, deletes too. Mostly they have the own change
// themselves and decide the same; but a region that has collected its tombstone, while this one could not
// merge its own delete, would keep the row.
func TestSelfMergeTellsWhatItUndoes(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	g := map[string]uint32{}
	mine := b.tx(g, remove(r, row("1", "old", 4, 4)))
	b.exec("insert into acct values (1, 'theirs', 1, '2023-12-31')") // as another region's insert has left it
	b.slot()
	merge := b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) { return tombstone.ReadSnapshot(ctx, b.conn) })
	merge(mine)
	b.want("select count(*) from acct", "0")
	b.want(conflicts, `delete_origin_differs|apply|{"id": 1}|b`)
	b.wantTold("a told update_deleted 2: 1=theirs against tombstone of 1", "c told update_deleted 2: 1=theirs against tombstone of 1", "repair delete 1=")
}
