package apply

import (
	"context"
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestGiantTransactionBeyondTheLimitOfTheIndex: where the index holds no more keys, it cannot tell
// whose entry a key has. A transaction in parts must not take the entries that it wrote itself for
// somebody else's, or it would begin again for ever.
func TestGiantTransactionBeyondTheLimitOfTheIndex(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	cfg := b.a.cfg
	b.a.Close()
	cfg.Index = tombstone.NewIndex(5)
	cfg.Barrier = func(context.Context) error { return nil }
	b.a = New(cfg)
	if _, err := b.a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.a.Close)
	whole := b.tx(nil)
	const parts, rows = 4, 15
	for i := range parts * rows {
		whole.Changes = append(whole.Changes, wal.Change{Op: wal.Insert, Relation: r, New: text(fmt.Sprint(i), "v"), Stamp: wal.Stamp{UpdatedAt: whole.CommitTime, Version: wal.NullVersion}})
	}
	for n := range parts {
		p := *whole
		p.Changes, p.Part, p.More = whole.Changes[n*rows:(n+1)*rows], uint32(n), n < parts-1
		if p.More {
			p.EndLSN = 0
		}
		next := b.a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo, next.EndLSN = 1, uint64(n+1), p.EndLSN
		if err := b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{&p}, Next: next}}); err != nil {
			t.Fatalf("part %d: %v", n, err)
		}
	}
	b.want("select count(*) from plain", fmt.Sprint(parts*rows))
	b.want("select count(*) from pgwaltz.tombstone where live", fmt.Sprint(parts*rows))
}
