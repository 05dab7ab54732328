package apply

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// third makes b a region that publishes, and adds the applier of a third region to it.
func (b *bench) third() *Applier {
	b.t.Helper()
	b.idx.Stamped(500)
	b.a.cfg.Barrier = func(context.Context) error { return nil }
	cfg := b.a.cfg
	cfg.Origin = "c"
	c := New(cfg)
	if _, err := c.Open(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

func after(a *Applier, tx *wal.Transaction) checkpoint.Checkpoint {
	next := a.Checkpoint()
	next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
	next.Incarnation, next.FrameNo, next.EndLSN = 1, next.FrameNo+1, tx.EndLSN
	return next
}

// halves splits a transaction of two changes into two parts.
func halves(tx *wal.Transaction) (first, last *wal.Transaction) {
	p, q := *tx, *tx
	p.Changes, p.More, p.EndLSN = tx.Changes[:1], true, 0
	q.Changes, q.Part = tx.Changes[1:], 1
	return &p, &q
}

func deliver(t *testing.T, a *Applier, tx *wal.Transaction) error {
	t.Helper()
	return a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{tx}, Next: after(a, tx)}})
}

// buried writes the tombstone of an own delete of row 1, as the self-merge does, and makes it known.
func (b *bench) buried(r *wal.Relation) {
	b.t.Helper()
	b.exec(`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, origin, lsn) values ('public.acct', '["1"]', 0, 2, 1704067200000000, 'b', '0/10')`)
	b.idx.Put(r.Ref(), []byte(`["1"]`), conflict.Item{LSN: 16, Next: 1})
}

// beginsAgain delivers the last part of a transaction, which has to begin again with it, and then goes in.
func (b *bench) beginsAgain(first, last *wal.Transaction) {
	b.t.Helper()
	if err := deliver(b.t, b.a, last); !errors.Is(err, ErrStartAgain) {
		b.t.Fatalf("the end of the transaction: %v", err)
	}
	for _, p := range []*wal.Transaction{first, last} {
		if err := deliver(b.t, b.a, p); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Region c deletes a row that has not come here yet, in a transaction that is still open; then
// the row comes from region a. Neither sees the other in the database.
func TestARowAndABlindTombstoneMeet(t *testing.T) {
	t.Parallel()
	for _, publishes := range []bool{true, false} {
		t.Run(fmt.Sprintf("publishes %t", publishes), func(t *testing.T) {
			t.Parallel()
			meetABlindTombstone(t, publishes)
		})
	}
}

func meetABlindTombstone(t *testing.T, publishes bool) {
	b, r := newBench(t, acctDDL), acct()
	c := b.third()
	first, last := halves(b.tx(nil, remove(r, row("1", "a", 1, 1)), insert(r, row("9", "c", 1, 1))))
	if !publishes {
		b.a.cfg.Barrier, c.cfg.Barrier = nil, nil
	}
	if err := deliver(t, c, first); err != nil {
		t.Fatal(err)
	}
	tx := b.tx(nil, insert(r, row("1", "a", 1, 1)))
	var open *openError
	if err := b.a.attempt(t.Context(), []keyedTx{{tx: tx}}, after(b.a, tx), false, &effects{}); !errors.As(err, &open) {
		t.Fatalf("the row went in beside an open tombstone: %v", err)
	}
	if err := b.a.rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, c, last); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, b.a, tx); err != nil {
		t.Fatal(err)
	}
	b.want(acctRows, "9|c|1")
	b.want("select key, live from pgwaltz.tombstone", `["1"]|false`)
}

// A row's commit is under way: who would write a tombstone does not look before it has ended.
func TestALookWaitsForCommits(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	c := b.third()
	b.idx.Committing("a")
	tx := b.tx(nil, remove(r, row("1", "a", 1, 1)))
	if err := c.attempt(t.Context(), []keyedTx{{tx: tx}}, after(c, tx), false, &effects{}); !errors.Is(err, errRace) {
		t.Fatalf("it looked: %v", err)
	}
	if err := c.rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.idx.Settle("a", true)
	if err := deliver(t, c, tx); err != nil {
		t.Fatal(err)
	}
	b.want("select key, live from pgwaltz.tombstone", `["1"]|false`)
}

// While a giant transaction is open that has put a row, the tombstone of an own delete, which was
// committed before, is merged: the row begins again, and meets it.
func TestAGiantMeetsATombstoneThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.third()
	first, last := halves(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("9", "c", 1, 1))))
	if err := deliver(t, b.a, first); err != nil {
		t.Fatal(err)
	}
	b.buried(r)
	b.beginsAgain(first, last)
	b.want(acctRows, "9|c|1")
}

// The same of a row that came with others that were there already, as in a copy of what both regions have: it was put back, and is not one of those.
func TestAPutRowAmongOthersMeetsATombstoneThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.third()
	b.exec(`insert into acct values (2, 'b', 1, '2024-01-01'), (3, 'c', 1, '2024-01-01')`)
	tx := b.tx(nil, insert(r, row("3", "c", 1, 1)), insert(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("9", "d", 1, 1)))
	first, last := *tx, *tx
	first.Changes, first.More, first.EndLSN = tx.Changes[:3], true, 0
	last.Changes, last.Part = tx.Changes[3:], 1
	if err := deliver(t, b.a, &first); err != nil {
		t.Fatal(err)
	}
	b.buried(r)
	b.beginsAgain(&first, &last)
	b.want(acctRows, "2|b|1;3|c|1;9|d|1")
}

// Rows without stamp columns that are put among others that are there are no conflict with themselves.
func TestRowsPutAmongOthersAreNoConflict(t *testing.T) {
	t.Parallel()
	for _, kind := range []conflict.EventKind{conflict.Live, conflict.Copy} {
		b, r := newBench(t, plainDDL), plainTable()
		b.third()
		b.exec(`insert into plain values (2, 'b')`)
		tx := b.tx(nil, insert(r, text("1", "a")), insert(r, text("2", "b")), insert(r, text("3", "c")))
		if err := b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{tx}, Kind: kind, Next: after(b.a, tx)}}); err != nil {
			t.Fatal(err)
		}
		b.want("select id, v from plain order by id", "1|a;2|b;3|c")
		b.want("select key ->> 'id', type from pgwaltz.conflict where key ->> 'id' <> '2'", "")
	}
}

// An own delete of a row waits for the self-merge, which takes long; so a giant transaction puts the
// row back without knowing of it. If the delete is merged before the row is committed, the
// self-merge has not seen it: the row begins again.
func TestAGiantMeetsAnOwnDeleteThatIsMergedMeanwhile(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.third()
	b.a.cfg.Barrier = func(context.Context) error { return ErrOverdue }
	b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: 16}, conflict.Item{Next: 1})
	first, last := halves(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("9", "c", 1, 1))))
	if err := deliver(t, b.a, first); err != nil {
		t.Fatal(err)
	}
	b.buried(r)
	b.idx.Merged(17)
	b.beginsAgain(first, last)
	b.want(acctRows, "9|c|1")
}

// TestAGiantDoesNotBeginAgainForEver: the application inserts and deletes a key that a giant transaction puts, again and
// again while that is applied. Its change of the key is set aside in the end, and the rest goes in.
func TestAGiantDoesNotBeginAgainForEver(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.third()
	b.a.cfg.Barrier = func(context.Context) error { return ErrOverdue }
	key, at := []byte(`["1"]`), wal.LSN(16)
	first, last := halves(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("9", "c", 1, 1))))
	tries := 0
	for again := true; again; tries++ {
		if tries > 6 {
			t.Fatal("it begins again for ever")
		}
		again = false
		b.idx.Note(r.Ref(), key, tombstone.Place{Commit: at}, conflict.Item{Next: 1})
		for _, p := range []*wal.Transaction{first, last} {
			err := deliver(t, b.a, p)
			if errors.Is(err, ErrStartAgain) {
				again = true
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if p == first {
				b.idx.Put(r.Ref(), key, conflict.Item{LSN: at, Next: 1})
				b.idx.Merged(at + 1)
				at += 16
			}
		}
	}
	b.want(acctRows, "9|c|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["1"]|40001`)
	if tries != 3 { // twice the own change, and this
		t.Errorf("%d tries", tries)
	}
}

// As above, of a whole transaction, while the self-merge is at it: whether it sees the row nobody
// knows. If it has not begun yet, it will.
func TestARowAndAnOwnDeleteAtWork(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.third()
	b.a.barrier = true
	b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: 16}, conflict.Item{Next: 1})
	tx := b.tx(nil, insert(r, row("1", "a", 1, 1)))
	// Behind a look, not as a new row.
	tx.Changes[0].Op = wal.Update
	b.idx.Merging(17)
	var open *openError
	if err := b.a.attempt(t.Context(), []keyedTx{{tx: tx}}, after(b.a, tx), false, &effects{}); !errors.As(err, &open) {
		t.Fatalf("the row went in beside a delete that is being merged: %v", err)
	}
	if err := b.a.rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.idx.Merging(16)
	b.a.barrier = true
	if err := b.a.attempt(t.Context(), []keyedTx{{tx: tx}}, after(b.a, tx), false, &effects{}); err != nil {
		t.Fatal(err)
	}
	b.want(acctRows, "1|a|1")
}

// As above, while region c deletes the row too, in a transaction that is still open: the self-merge
// compares the row with the own delete, and not with one that it does not know.
func TestARowAndAnOwnDeleteAndABlindTombstone(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	c := b.third()
	b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: 16}, conflict.Item{Next: 1})
	first, last := halves(b.tx(nil, remove(r, row("1", "a", 3, 1)), insert(r, row("9", "c", 1, 1))))
	if err := deliver(t, c, first); err != nil {
		t.Fatal(err)
	}
	tx := b.tx(nil, insert(r, row("1", "a", 1, 1)))
	tx.Changes[0].Op = wal.Update
	try := func() error {
		b.a.barrier = true
		return b.a.attempt(t.Context(), []keyedTx{{tx: tx}}, after(b.a, tx), false, &effects{})
	}
	var open *openError
	if err := try(); !errors.As(err, &open) {
		t.Fatalf("the row went in beside an open tombstone: %v", err)
	}
	if err := b.a.rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, c, last); err != nil {
		t.Fatal(err)
	}
	if err := b.a.awaitOpen(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	b.want(acctRows, "9|c|1")
}

// A tombstone that came since the look is met as well.
func TestANotedRowMeetsATombstoneThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	c := b.third()
	b.a.cfg.Barrier = func(context.Context) error { return ErrOverdue }
	b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: 16}, conflict.Item{Next: 1})
	first, last := halves(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("9", "c", 1, 1))))
	if err := deliver(t, b.a, first); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, c, b.tx(nil, remove(r, row("1", "a", 3, 1)))); err != nil {
		t.Fatal(err)
	}
	b.beginsAgain(first, last)
	b.want(acctRows, "9|c|1")
}

// A commit of the self-merge whose answer was lost has merged what it has merged: a row that it has not seen
// begins again.
func TestOwnDeletesOfALostCommitAreMerged(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	cfg := b.a.cfg
	cfg.Origin, cfg.Self = "b", true
	merge := New(cfg)
	t.Cleanup(merge.Close)
	if _, err := merge.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: 16}, conflict.Item{Next: 1})
	b.idx.Note(r.Ref(), []byte(`["2"]`), tombstone.Place{Commit: 32}, conflict.Item{Next: 1})
	b.idx.Merging(17)
	b.exec(`update pgwaltz.checkpoint set end_lsn = '0/11' where origin = 'b'`)
	if _, err := merge.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]tombstone.Meeting{`["1"]`: tombstone.MeetsEntry, `["2"]`: tombstone.Alone} {
		if got := b.idx.StillNoted(b.idx.Hash(r.Ref(), key)); got != want {
			t.Errorf("key %s: %d, want %d", key, got, want)
		}
	}
}

// Where stamping waits for the self-merge, the items of a giant transaction are written by
// themselves first, in one transaction over all its parts. What comes behind it is left out until what was committed
// then is stamped; then it begins again.
func TestItemsOfAGiantAreRecordedFirst(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	stamped := make(chan struct{})
	b.a.cfg.WaitStamped = func(ctx context.Context) (*tombstone.Snapshot, error) {
		<-stamped
		return tombstone.ReadSnapshot(ctx, b.conn)
	}
	whole := b.tx(nil, remove(r, row("1", "a", 1, 1)), insert(r, row("2", "b", 1, 1)), insert(r, row("3", "c", 1, 1)))
	behind := b.tx(nil, insert(r, row("4", "d", 1, 1)))
	parts := func() {
		for n := range whole.Changes {
			p := *whole
			p.Changes, p.Part, p.More = whole.Changes[n:n+1], uint32(n), n < 2
			if p.More {
				p.EndLSN = 0
			}
			if err := deliver(t, b.a, &p); err != nil {
				t.Fatalf("part %d: %v", n, err)
			}
		}
	}
	b.a.giant = giant{commit: whole.CommitLSN, record: true}
	parts()
	if err := deliver(t, b.a, behind); err != nil || !b.a.InParts() || b.a.GivesWay() {
		t.Fatalf("what comes behind it is not left out: %v", err)
	}
	b.want(acctRows, "")
	close(stamped)
	<-b.a.behind.ended
	if !b.a.GivesWay() {
		t.Error("it waits for more although all is stamped")
	}
	if err := deliver(t, b.a, behind); !errors.Is(err, ErrStartAgain) || b.a.InParts() {
		t.Fatalf("it does not begin again: %v", err)
	}
	parts()
	b.want(acctRows, "2|b|1;3|c|1")
}
