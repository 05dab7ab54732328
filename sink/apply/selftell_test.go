package apply

import (
	"context"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
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

// A change that another region made over an own one, without rising above it, came before the own one was known here, was
// not refused therefore, and waits. What ends its waiting, the row that stands here or its delete, is told to that region.
func TestSelfMergeTellsWhatItEnds(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	g := map[string]uint32{"1": 1, "2": 1}
	mine := b.tx(g, insert(r, row("1", "mine", 5, 5)), insert(r, row("2", "mine", 5, 5)))
	gone := b.tx(g, remove(r, row("2", "mine", 5, 5)))
	b.exec("insert into acct values (1, 'mine', 5, '2024-01-05 00:00:00+00'), (2, 'mine', 5, '2024-01-05 00:00:00+00')")
	lower := b.tx(map[string]uint32{"1": 1, "2": 1}, insert(r, row("1", "bad", 3, 3)), insert(r, row("2", "bad", 3, 3)))
	for i := range lower.Changes {
		lower.Changes[i].Op = wal.Update
	}
	b.apply(lower)
	b.want("select count(*) from pgwaltz.parked", "2")
	b.exec("delete from acct where id = 2")
	b.slot()
	merge := b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) { return tombstone.ReadSnapshot(ctx, b.conn) })
	merge(mine, gone)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want(acctRows, "1|mine|5")
	b.wantTold("a told insert_exists 2: 1=bad against 1=mine", "a told update_deleted 2: 2=bad against tombstone of 2",
		"c told insert_exists 2: 1=bad against 1=mine", "c told update_deleted 2: 2=bad against tombstone of 2", "repair delete 2=", "repair update 1=mine")
	for _, c := range b.told().repairs {
		if c.Stamp.Generation != 1 {
			t.Errorf("%s is of generation %d", c.Op, c.Stamp.Generation)
		}
	}
}
