package apply

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ownGiant is a giant transaction of region b on its way through the self-merge, one change in a part. Stamping
// stalls as long as it is open or begins again, as it does when the stream holds less than the transaction.
type ownGiant struct {
	b      *bench
	a      *Applier
	whole  *wal.Transaction
	passes int         // how often it was read from its first part
	rounds int         // how often its items were written by themselves
	free   atomic.Bool // nothing stalls: its parts are all read
	vain   bool        // something stalls even then: what lies behind it
	size   int         // changes of a part
	// since is called when it is known what is stamped, the first time.
	since func()
}

func newOwnGiant(b *bench, chs ...wal.Change) *ownGiant {
	b.t.Helper()
	g := &ownGiant{b: b, since: func() {}}
	g.a = New(b.selfConfig(func(ctx context.Context) (*tombstone.Snapshot, error) {
		if !g.free.Swap(false) {
			return nil, tombstone.ErrStalled
		}
		s, err := tombstone.ReadSnapshot(ctx, b.conn)
		g.since()
		g.since = func() {}
		return s, err
	}))
	g.whole = b.tx(nil, chs...)
	if _, err := g.a.Open(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(g.a.Close)
	return g
}

// merge reads the transaction until it is merged.
func (g *ownGiant) merge() {
	g.b.t.Helper()
	for g.passes = 1; g.passes < 20; g.passes++ {
		err := g.pass()
		if err == nil {
			return
		}
		if !errors.Is(err, ErrStartAgain) {
			g.b.t.Fatal(err)
		}
		if _, err := g.a.Open(g.b.t.Context()); err != nil {
			g.b.t.Fatal(err)
		}
	}
	g.b.t.Fatal("it never ends")
}

func (g *ownGiant) pass() error {
	size := max(g.size, 1)
	n := (len(g.whole.Changes) + size - 1) / size
	for i := range n {
		p := *g.whole
		to := min((i+1)*size, len(g.whole.Changes))
		p.Changes, p.Part, p.More = g.whole.Changes[i*size:to:to], uint32(i), i < n-1
		next := g.a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo = 1, next.FrameNo+uint64(i)+1
		if p.More {
			p.EndLSN = 0
		} else {
			next.EndLSN, next.Mark = p.EndLSN, wal.MarkOf(&p)
			g.free.Store(g.a.giant.record && !g.vain)
		}
		if err := g.a.Apply(g.b.t.Context(), []Unit{{Transactions: []*wal.Transaction{&p}, Kind: conflict.Self, Next: next}}); err != nil {
			return err
		}
	}
	if !g.a.InParts() {
		return nil
	}
	g.rounds++
	<-g.a.behind.ended
	if !g.a.GivesWay() {
		g.b.t.Error("it waits for what it leaves out")
	}
	return g.a.Apply(g.b.t.Context(), []Unit{{Transactions: []*wal.Transaction{g.b.tx(nil)}, Kind: conflict.Self, Next: g.a.Checkpoint()}})
}

// TestAGiantIsDecidedByWhatWasStampedBehindIt: an own giant transaction that is larger than the stream meets
// rows that another region has written. Nothing of it is set aside only because later own changes are not
// merged yet: behind its last part all that is committed by then is stamped. Not parallel, see
// TestAGiantSetsAsideWhatWasWrittenSince.
func TestAGiantIsDecidedByWhatWasStampedBehindIt(t *testing.T) {
	b, r := newBench(t, plainDDL), plainTable()
	theirs := b.tx(nil, update(r, text("1", "x"), text("1", "theirs")), update(r, text("2", "x"), text("2", "theirs")), update(r, text("3", "x"), text("3", "theirs")))
	g := newOwnGiant(b, update(r, text("1", "x"), text("1", "mine")), update(r, text("2", "x"), text("2", "mine")), update(r, text("3", "x"), text("3", "mine")))
	b.exec("insert into plain values (1, 'mine'), (2, 'mine'), (3, 'mine')")
	b.idx.Put(r.Ref(), []byte(`["9"]`), conflict.Item{LSN: 1, Next: 1})
	b.apply(theirs)
	b.exec("update plain set v = 'theirs'") // whatever the server says of the time of a row
	g.merge()
	b.want("select * from plain order by id", "1|mine;2|mine;3|mine")
	b.want("select count(*) from pgwaltz.parked", "0")
	if g.passes != 3 {
		t.Errorf("it was read %d times", g.passes)
	}
}

// TestAGiantSetsAsideWhatWasWrittenSince: of rows that somebody has written since what was stamped is known nobody
// knows whether a later own change wrote them. A few are set aside; where they are many, it is tried to know more first.
//
// It is not parallel: a transaction of another test that ends meanwhile might be the one that wrote a row, and then that
// row is not known either.
func TestAGiantSetsAsideWhatWasWrittenSince(t *testing.T) {
	for _, n := range []int{2, fewGuesses + 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b, r := newBench(t, plainDDL), plainTable()
			var theirs, mine []wal.Change
			for i := range n {
				id := fmt.Sprint(i)
				theirs = append(theirs, update(r, text(id, "x"), text(id, "theirs")))
				mine = append(mine, update(r, text(id, "x"), text(id, "mine")))
			}
			old := b.tx(nil, theirs...)
			g := newOwnGiant(b, mine...)
			b.exec(fmt.Sprintf("insert into plain select i, 'mine' from generate_series(0, %d) i", n-1))
			b.apply(old)
			g.since = func() { b.exec("update plain set v = v where id > 0") }
			g.merge()
			if n < fewGuesses {
				b.want("select * from plain order by id", "0|mine;1|theirs")
				b.want("select key, sqlstate from pgwaltz.parked", `["1"]|PW005`)
			} else {
				b.want("select v, count(*) from plain group by 1", fmt.Sprintf("mine|%d", n))
				b.want("select count(*) from pgwaltz.parked", "0")
			}
			if want := map[bool]int{true: 1, false: 2}[n < fewGuesses]; g.rounds != want {
				t.Errorf("%d rounds", g.rounds)
			}
		})
	}
}

// TestAGiantWaitsForItselfOnce: where stamping waits for what lies behind an own giant transaction, its items are written once, and then it
// is decided by what is known. It does not begin again for each thousand of its rows.
func TestAGiantWaitsForItselfOnce(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	const n = fewGuesses + 10
	var theirs, mine []wal.Change
	for i := range n {
		id := fmt.Sprint(i)
		theirs = append(theirs, update(r, text(id, "x"), text(id, "theirs")))
		mine = append(mine, update(r, text(id, "x"), text(id, "mine")))
	}
	old := b.tx(nil, theirs...)
	g := newOwnGiant(b, mine...)
	g.vain, g.size = true, 200
	b.exec(fmt.Sprintf("insert into plain select i, 'mine' from generate_series(0, %d) i", n-1))
	b.apply(old)
	b.exec("update plain set v = v")
	g.merge()
	b.want("select count(*), min(sqlstate), max(sqlstate) from pgwaltz.parked", fmt.Sprintf("%d|PW005|PW005", n))
	if g.passes != 3 || g.rounds != 1 {
		t.Errorf("it was read %d times, %d of them for its items", g.passes, g.rounds)
	}
}

// TestAGiantThatFailedIsPatientAgain: a giant transaction that could not wait any longer for a lock goes on with
// what is parked then; the next lock that is late does not end the run.
func TestAGiantThatFailedIsPatientAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL)
	b.a.cfg.LockTimeout = time.Minute
	b.a.giant = giant{commit: 1, tried: patience{locks: time.Minute, locked: time.Now().Add(-time.Hour)}}
	late := &pgconn.PgError{Code: "55P03"}
	for i := range 2 {
		if err := b.a.partFailed(t.Context(), late); !errors.Is(err, ErrStartAgain) || !b.a.giant.failed {
			t.Errorf("%d: %v, %+v", i, err, b.a.giant)
		}
	}
}

// TestAGiantDoesNotWaitForWhatIsFarBehind: where much of the own WAL is not stamped yet, the rows of an own giant transaction that another region
// has written are set aside, whatever their number, without its being read once more than it takes to find that out.
func TestAGiantDoesNotWaitForWhatIsFarBehind(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	var theirs, mine []wal.Change
	for i := range fewGuesses + 10 {
		k := fmt.Sprint(i)
		theirs, mine = append(theirs, update(r, text(k, "x"), text(k, "theirs"))), append(mine, update(r, text(k, "x"), text(k, "mine")))
	}
	over := b.tx(nil, theirs...)
	g := newOwnGiant(b, mine...)
	g.size, g.a.cfg.WaitStamped = 200, func(context.Context) (*tombstone.Snapshot, error) { return nil, tombstone.ErrFarBehind }
	b.exec(fmt.Sprintf("insert into plain select g, 'mine' from generate_series(0, %d) g", len(mine)-1))
	b.apply(over)
	b.exec("update plain set v = 'theirs'")
	g.merge()
	if g.passes != 2 || g.rounds != 0 {
		t.Errorf("it was read %d times, its items written %d times by themselves", g.passes, g.rounds)
	}
	b.want("select count(*), min(sqlstate), max(sqlstate) from pgwaltz.parked", fmt.Sprintf("%d|PW005|PW005", len(mine)))
	b.want("select count(*) from plain where v = 'theirs'", fmt.Sprint(len(mine)))
}
