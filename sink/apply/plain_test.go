package apply

import (
	"context"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

const plainDDL = "create table public.plain(id int primary key, v text)"

func plainTable() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "plain", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25, Key: true}}}
}

// selfMerge is an applier of region b's own changes beside that of region a's.
func (b *bench) selfMerge() func(txs ...*wal.Transaction) {
	return b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) { return tombstone.ReadSnapshot(ctx, b.conn) })
}

func (b *bench) selfConfig(stamped func(context.Context) (*tombstone.Snapshot, error)) Config {
	cfg := b.a.cfg
	cfg.Self, cfg.Origin, cfg.Peer, cfg.Peers, cfg.Replica = true, "b", "a", []string{"a", "c"}, false
	cfg.WaitStamped = stamped
	return cfg
}

func (b *bench) selfMergeWith(stamped func(context.Context) (*tombstone.Snapshot, error)) func(txs ...*wal.Transaction) {
	b.t.Helper()
	return b.mergeWith(New(b.selfConfig(stamped)))
}

func (b *bench) mergeWith(a *Applier) func(txs ...*wal.Transaction) {
	b.t.Helper()
	if _, err := a.Open(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(a.Close)
	return func(txs ...*wal.Transaction) {
		b.t.Helper()
		next := a.Checkpoint()
		next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
		next.Incarnation, next.FrameNo = 1, next.FrameNo+1
		next.EndLSN, next.Mark = txs[len(txs)-1].EndLSN, wal.MarkOf(txs[len(txs)-1])
		if err := a.Apply(b.t.Context(), []Unit{{Transactions: txs, Kind: conflict.Self, Next: next}}); err != nil {
			b.t.Fatalf("self-merge: %v", err)
		}
	}
}

// TestSelfMergeLeavesTheApplicationsRowsAlone: what this region wrote into a table without stamp
// columns is written down while the application holds the rows.
func TestSelfMergeLeavesTheApplicationsRowsAlone(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	merge := b.selfMerge()
	b.exec("insert into plain values (1, 'a2'), (2, 'b')")
	app, err := pg.Connect(t.Context(), b.dsn, pg.Options{Region: "b", Role: "app"})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	for _, sql := range []string{"begin", "lock table public.plain in access exclusive mode"} {
		if _, err := app.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	timer := time.AfterFunc(time.Minute, func() { app.Exec(context.Background(), "rollback") })
	defer timer.Stop()
	go func() {
		defer close(done)
		for range 3 { // again and again, as a hot row is written
			merge(b.tx(nil, insert(r, text("1", "a")), insert(r, text("2", "b"))), b.tx(nil, update(r, text("1", "a"), text("1", "a2"))))
		}
	}()
	<-done
	if !timer.Stop() {
		t.Error("the self-merge waited for a row of the application")
	}
	if _, err := app.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	b.want("select key, generation, live, plain, origin from pgwaltz.tombstone order by key", `["1"]|-1|true|true|b;["2"]|-1|true|true|b`)
	b.want("select count(*) from pgwaltz.past", "0")
	if b.idx.Any(r.Ref()) {
		t.Error("the index knows of keys that nothing is stamped from")
	}
	// A remote write that is older loses, a later one wins; then the entry is the remote one's.
	later := b.tx(nil, update(r, text("2", "x"), text("2", "later")))
	older := b.tx(nil, update(r, text("1", "x"), text("1", "older")))
	for i := range older.Changes {
		older.Changes[i].Stamp.UpdatedAt = 1
	}
	b.apply(later, older)
	b.want("select * from plain order by id", "1|a2;2|later")
	b.want(conflicts, `update_origin_differs|apply|{"id": 2}|a;update_origin_differs|keep|{"id": 1}|b`)
	b.want("select key, plain, origin from pgwaltz.tombstone order by key", `["1"]|true|b;["2"]|false|a`)
}

// TestSelfMergeLooksWhereARemoteChangeIsKnown: an own change that was not known when a remote one
// overwrote its row is decided about again, although nothing is known of the key in memory.
func TestSelfMergeLooksWhereARemoteChangeIsKnown(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	merge := b.selfMerge()
	b.exec("insert into plain values (1, 'mine')")
	old := b.tx(nil, update(r, text("1", "x"), text("1", "theirs")))
	own := b.tx(nil, insert(r, text("1", "mine")))
	b.apply(old)
	b.want("select * from plain", "1|theirs")
	b.idx.Reset()
	merge(own)
	b.want("select * from plain", "1|mine")
	b.want("select key, plain, origin, live from pgwaltz.tombstone", `["1"]|false|b|true`)
}

// TestSelfMergePutsBackOneOwnChangeAfterTheOther: a remote delete or update took the place of a row
// whose own changes come to the self-merge one by one. What it put back for the first is not taken for
// a row of the application by the second.
func TestSelfMergePutsBackOneOwnChangeAfterTheOther(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	merge := b.selfMerge()
	b.exec("insert into plain values (1, 'second'), (2, 'second')")
	gone, other := b.tx(nil, remove(r, text("1", "x"))), b.tx(nil, update(r, text("2", "x"), text("2", "theirs")))
	first := b.tx(nil, insert(r, text("1", "first")), insert(r, text("2", "first")))
	second := b.tx(nil, update(r, text("1", "first"), text("1", "second")), update(r, text("2", "first"), text("2", "second")))
	b.apply(gone, other)
	b.want("select * from plain", "2|theirs")
	merge(first)
	b.want("select * from plain order by id", "1|first;2|first")
	b.want("select key, plain, origin, live from pgwaltz.tombstone order by key", `["1"]|false|b|true;["2"]|false|b|true`)
	merge(second)
	b.want("select * from plain order by id", "1|second;2|second")
}

// TestRowsOfWhichTheServerKnows: with track_commit_timestamp the time of a row is that of its
// transaction, but for rows that an applier wrote, or that were there before.
func TestRowsOfWhichTheServerKnows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	tr, lost, err := tombstone.Track(t.Context(), b.conn, 42)
	if err != nil || lost {
		t.Fatal(err, lost)
	}
	if !tr.On || (tombstone.Tracked{}).SQL() != "" {
		t.Fatalf("%+v", tr)
	}
	b.exec("insert into plain values (1, 'mine')")
	b.a.cfg.Tracked = tr
	early := b.tx(nil, update(r, text("1", "x"), text("1", "early"))) // of the year 2024
	b.apply(early)
	b.want("select * from plain", "1|mine")
	late := b.tx(nil, update(r, text("1", "x"), text("1", "late")))
	late.Changes[0].Stamp.UpdatedAt = wal.MicrosOf(time.Now().Add(time.Hour))
	b.apply(late)
	b.want("select * from plain", "1|late")
	// What was written before counts for nothing.
	b.exec("insert into plain values (2, 'before')")
	if err := b.conn.QueryRow(t.Context(), "select pg_snapshot_xmax(pg_current_snapshot())::text::int8").Scan(&b.a.cfg.Tracked.Since); err != nil {
		t.Fatal(err)
	}
	b.exec("select pg_current_xact_id()")
	b.a.forgetSchemas()
	b.apply(b.tx(nil, update(r, text("2", "x"), text("2", "early"))))
	b.want("select v from plain where id = 2", "early")
	again, lost, err := tombstone.Track(t.Context(), b.conn, 42)
	if err != nil || lost || again != tr {
		t.Errorf("%+v, %v, %v; want %+v", again, lost, err, tr)
	}
	// Another server's ids say nothing.
	if other, _, err := tombstone.Track(t.Context(), b.conn, 43); err != nil || other.Since < tr.Since {
		t.Errorf("%+v, %v", other, err)
	}
	b.want("select system_id::text from pgwaltz.tracked", "43")
}

// TestRowsOfLaterTransactions: the server knows when a row was written by a transaction that began
// behind the applier's own, too. Such rows are met after a wait for their lock.
func TestRowsOfLaterTransactions(t *testing.T) {
	t.Parallel()
	b := newBench(t, plainDDL)
	tr, _, err := tombstone.Track(t.Context(), b.conn, 42)
	if err != nil {
		t.Fatal(err)
	}
	applier, err := b.a.cfg.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer applier.Close(t.Context())
	if _, err := applier.Exec(t.Context(), "begin; select pg_current_xact_id(); select age('3'::xid)"); err != nil {
		t.Fatal(err)
	}
	b.exec("insert into plain values (1, 'later')")
	b.exec("insert into plain values (2, 'later')")
	var known int
	err = applier.QueryRow(t.Context(), "select count(*) from public.plain t where "+tr.SQL()+" > (extract(epoch from now()) * 1000000)::int8").Scan(&known)
	if err != nil || known != 2 {
		t.Errorf("%d rows of later transactions have a time, %v; want 2", known, err)
	}
}

// TestOldestRowsLeaveNoEntry: a copied row of which its region knows no time is put in with nothing
// beside it, as long as such a row can be told from one that was written here.
func TestOldestRowsLeaveNoEntry(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL), plainTable()
	b.exec("insert into plain values (1, 'a')")
	old := func(id, v string) *wal.Transaction {
		tx := b.tx(nil, insert(r, text(id, v)))
		tx.Changes[0].Stamp.UpdatedAt = wal.MinMicros
		return tx
	}
	b.apply(old("1", "a"), old("2", "b"), old("3", "c"))
	b.want("select * from plain order by id", "1|a;2|b;3|c")
	b.want("select count(*) from pgwaltz.tombstone where key <> '[\"1\"]'", "0")
	// A later write of such a row is decided about as ever.
	b.apply(b.tx(nil, update(r, text("2", "b"), text("2", "b2"))))
	b.want("select v from plain where id = 2", "b2")
	b.want(conflicts, "")
	// Commit times are kept, and transactions have no origin that would tell.
	b.a.cfg.Tracked = tombstone.Tracked{On: true}
	b.apply(old("4", "d"))
	b.want("select key, live from pgwaltz.tombstone where key = '[\"4\"]'", `["4"]|true`)
}

// TestSelfMergeWaitsForSavepoints: a snapshot does not name subtransactions, so a row that one of them
// wrote looks as if its transaction had ended before. It may be a later own one, not known yet.
func TestSelfMergeWaitsForSavepoints(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, plainDDL+"; create table other(id int primary key)"), plainTable()
	b.exec("insert into plain values (1, 'mine')")
	theirs := b.tx(nil, update(r, text("1", "x"), text("1", "theirs")))
	own := b.tx(nil, insert(r, text("1", "mine")))
	b.apply(theirs)
	app, err := b.a.cfg.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	asked := 0
	merge := b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) {
		if asked++; asked > 1 {
			b.idx.Note(r.Ref(), []byte(`["1"]`), tombstone.Place{Commit: own.CommitLSN + 50}, conflict.Item{Live: true, At: own.CommitTime + 1})
			return tombstone.ReadSnapshot(ctx, b.conn)
		}
		for _, sql := range []string{"begin", "insert into public.other values (1)", "savepoint s", "update public.plain set v = 'later'"} {
			if _, err := app.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		b.exec("insert into public.other values (2)") // the subtransaction is none of the last
		s, err := tombstone.ReadSnapshot(ctx, b.conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.Exec(ctx, "commit"); err != nil {
			t.Fatal(err)
		}
		return s, nil
	})
	merge(own)
	b.want("select v from plain", "later")
	if asked != 2 {
		t.Errorf("waited %d times", asked)
	}
}
