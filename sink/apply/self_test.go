package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
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
	b.a.stamping, b.a.cfg.WaitStamped = stamping{}, func(context.Context) (*tombstone.Snapshot, error) {
		return &tombstone.Snapshot{}, tombstone.ErrFarBehind
	}
	if err := b.a.waitOrRecord(t.Context(), nil); err != nil || !b.a.stamping.guesses {
		t.Errorf("it waits for what is far behind: %v", err)
	}
	st := &known{row: wal.Tuple{}}
	stamped, err := b.a.isStamped(t.Context(), nil, st)
	if !stamped || !st.guessed || err != nil {
		t.Errorf("the changes are not decided about: %v, %v", stamped, err)
	}
}

// TestOneWaitShowsWhatIsStamped: where much of the own WAL is still to be merged, one wait shows who wrote its rows. Only of a row that is
// not there nothing is known any more, and of none after some time. It is not parallel, see TestAGiantSetsAsideWhatWasWrittenSince.
func TestOneWaitShowsWhatIsStamped(t *testing.T) {
	b, r := newBench(t, acctDDL), acct()
	waited := 0
	a := New(b.selfConfig(func(ctx context.Context) (*tombstone.Snapshot, error) {
		waited++
		return tombstone.ReadSnapshot(ctx, b.conn)
	}))
	merge := b.mergeWith(a)
	g := map[string]uint32{}
	b.exec("insert into acct select i, 'theirs', 1, '2023-12-31' from generate_series(1, 4) i")
	for i, want := range []int{1, 1, 1} {
		merge(b.tx(g, remove(r, row(fmt.Sprint(i+1), "old", 1, 1))))
		if waited != want {
			t.Errorf("waited %d times for %d transactions", waited, i+1)
		}
	}
	merge(b.tx(g, remove(r, row("9", "old", 1, 1))))
	merge(b.tx(g, insert(r, row("9", "new", 1, 1))))
	if waited != 2 {
		t.Errorf("waited %d times when a row is not there", waited)
	}
	a.stamping.taken = a.stamping.taken.Add(-keptFor - time.Second)
	merge(b.tx(g, remove(r, row("4", "old", 1, 1))))
	if waited != 3 {
		t.Errorf("waited %d times: what was shown long ago is believed", waited)
	}
	b.want("select id from acct order by id", "9")
}

// TestSelfMergeBeyondTheLimit: of own changes that the index does not hold one by one, nobody knows which
// of them wrote the row that another one meets. The earlier one of them takes nothing away, and puts
// nothing back: it is set aside until the later one comes, or all of them are merged.
func TestSelfMergeBeyondTheLimit(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.idx = tombstone.NewLimitedIndex(tombstone.Limits{Own: 1})
	b.a.cfg.Index = b.idx
	stamped := func(ctx context.Context) (*tombstone.Snapshot, error) { return tombstone.ReadSnapshot(ctx, b.conn) }
	merge := b.selfMergeWith(stamped)
	g := map[string]uint32{}
	gone := b.tx(g, remove(r, row("1", "old", 1, 1)), remove(r, row("2", "old", 1, 1)), remove(r, row("3", "old", 1, 1)))
	born := b.tx(g, insert(r, row("1", "new", 0, 1)), insert(r, row("2", "new", 0, 1)))
	again := b.tx(g, remove(r, row("2", "new", 0, 1)))
	for i, k := range []string{`["9"]`, `["8"]`} {
		b.idx.Note(r.Ref(), []byte(k), tombstone.Place{Commit: wal.LSN(i + 1)}, conflict.Item{Next: 1})
	}
	for _, tx := range []*wal.Transaction{gone, born, again} {
		for i := range tx.Changes {
			b.idx.Note(r.Ref(), tx.Changes[i].AppendKey(nil), tombstone.Place{Commit: tx.CommitLSN}, conflict.Item{Next: 1, Live: tx.Changes[i].Op == wal.Insert})
		}
	}
	b.exec("insert into acct values (1, 'new', 0, '2024-01-01 00:00:00+00'), (3, 'theirs', 1, '2023-12-31 00:00:00+00')") // as the application, and another region, have left it
	merge(gone)
	b.want(acctRows, "1|new|0;3|theirs|1")
	b.want("select string_agg(key || op || sqlstate, ' ' order by key) from pgwaltz.parked", `["1"]deletePW005 ["3"]deletePW005`)
	merge(born)
	b.want(acctRows, "1|new|0;3|theirs|1") // 2 does not come back
	b.want("select string_agg(key || op || sqlstate, ' ' order by key) from pgwaltz.parked", `["2"]insertPW005 ["3"]deletePW005`)
	b.want("select live, generation from pgwaltz.tombstone where key = '[\"1\"]'", "true|0")
	re := patientRetrier(b.selfConfig(stamped))
	t.Cleanup(re.a.Close)
	b.turns(re, 3)
	b.want("select count(*) from pgwaltz.parked", "2") // a later change of 3 may come
	merge(again)
	b.idx.Merged(again.EndLSN)
	b.want("select string_agg(key, ' ') from pgwaltz.parked", `["3"]`)
	b.turns(re, 3)
	b.want(acctRows, "1|new|0")
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want(conflicts, `delete_origin_differs|apply|{"id": 3}|b`)
}

// TestRetrierOfOwnChangesWaitsForCommits: what is parked of this region itself is decided about behind
// the commits of others that were announced, as the self-merge does.
func TestRetrierOfOwnChangesWaitsForCommits(t *testing.T) {
	t.Parallel()
	b := newBench(t, acctDDL)
	cfg := b.a.cfg
	cfg.Origin, cfg.Self = "b", true
	r := patientRetrier(cfg)
	t.Cleanup(r.a.Close)
	if err := r.Turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.idx.Committing("a")
	late := errors.New("it waits")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
	defer cancel()
	if _, err := r.attempt(ctx, nil, false); !errors.Is(err, late) {
		t.Fatalf("it went on: %v", err)
	}
	b.idx.Settle("a", true)
	if n, err := r.attempt(t.Context(), nil, false); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

// TestSelfMergeBehindATruncate: rows that the application has truncated away do not come back, though they
// were not merged yet.
func TestSelfMergeBehindATruncate(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	merge := b.selfMerge()
	g := map[string]uint32{}
	before := b.tx(g, remove(r, row("1", "old", 1, 1)))
	born := b.tx(g, insert(r, row("1", "new", 1, 2)), insert(r, row("2", "new", 1, 2)))
	behind := b.tx(g, insert(r, row("2", "again", 2, 3)))
	b.idx.Truncated(r.Ref(), tombstone.Place{Commit: born.CommitLSN + 1})
	b.exec("insert into acct values (2, 'again', 2, '2024-01-03 00:00:00+00')")
	merge(before)
	merge(born)
	b.want(acctRows, "2|again|2")
	merge(behind)
	b.want(acctRows, "2|again|2")
	b.idx.Merged(born.CommitLSN + 2)
	if b.idx.Cut(r.Ref(), tombstone.Place{Commit: born.CommitLSN}) {
		t.Error("a truncate that is merged is remembered")
	}
}

// TestSelfMergeOfMovedRows: rows that were put into a table which then became a partition are in nobody's
// WAL, but the deletes of where they were are. A row that stood in a partition before is deleted as ever.
func TestSelfMergeOfMovedRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+` partition by range (id); create table public.low partition of acct for values from (0) to (10); create table public.high (like acct);
alter table public.high add primary key (id); insert into public.high values (11, 'moved', 1, '2024-01-01 00:00:00+00'); insert into public.low values (1, 'theirs', 1, '2023-12-31 00:00:00+00')`), acct()
	r.Partitioned = true
	merge := b.selfMerge()
	tx := b.tx(nil, remove(r, row("11", "moved", 1, 1)), remove(r, row("1", "old", 1, 1)))
	var xid int64
	if err := b.conn.QueryRow(t.Context(), "select pg_catalog.pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	tx.XID = wal.XID(xid)
	b.exec("begin; savepoint a; alter table acct attach partition public.high for values from (10) to (20); commit")
	merge(tx)
	b.want(acctRows, "11|moved|1")
	b.want("select string_agg(key || live, ' ' order by key) from pgwaltz.tombstone", `["1"]false ["11"]false`)
}

// TestATruncateEndsTheWaitingOfOwnRows: rows that were set aside, because a later own change might have written, or removed, what they met, do
// not come back behind a truncate of their table; nor do rows in front of a truncate in one transaction. What another region has written, a
// delete, and what was written behind the truncate still waits.
func TestATruncateEndsTheWaitingOfOwnRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	far := true
	cfg := b.selfConfig(func(ctx context.Context) (*tombstone.Snapshot, error) {
		if far {
			return nil, tombstone.ErrFarBehind
		}
		return tombstone.ReadSnapshot(ctx, b.conn)
	})
	merge := b.mergeWith(New(cfg))
	g := map[string]uint32{}
	gone := b.tx(g, remove(r, row("1", "old", 1, 1)), remove(r, row("2", "old", 1, 1)), remove(r, row("4", "old", 1, 1)))
	born := b.tx(g, insert(r, row("1", "new", 1, 2)), insert(r, row("2", "new", 1, 2)))
	b.exec("insert into acct values (4, 'theirs', 1, '2023-12-31')")
	merge(gone)
	merge(born)
	waiting := "select string_agg(origin || key || op || sqlstate, ' ' order by key) from pgwaltz.parked"
	b.want(waiting, `b["1"]insertPW005 b["2"]insertPW005 b["4"]deletePW005`)
	b.exec(`insert into pgwaltz.parked (origin, schema_name, table_name, key, commit_lsn, op, sqlstate) values ('a', 'public', 'acct', '["7"]', '0/1', 'insert', 'XX000')`)
	cut := b.tx(nil)
	cut.Changes = []wal.Change{{Op: wal.Truncate, Relation: r}}
	merge(cut)
	b.want(waiting, `b["4"]deletePW005 a["7"]insertXX000`)
	b.want("select count(*) from pgwaltz.conflict", "0") // that is for the peers to record
	b.exec("delete from pgwaltz.parked where origin = 'a'")

	b.exec("truncate acct")
	one := b.tx(g, remove(r, row("5", "old", 1, 1)))
	two := b.tx(g, insert(r, row("5", "new", 1, 2)), insert(r, row("6", "again", 1, 2)))
	two.Changes = slices.Insert(two.Changes, 1, wal.Change{Op: wal.Truncate, Relation: r})
	merge(one)
	merge(two)
	far = false
	b.idx.Merged(two.EndLSN)
	re := patientRetrier(cfg)
	t.Cleanup(re.a.Close)
	b.turns(re, 3)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select string_agg(id || v, ' ') from acct", "6again") // nothing stood there: of what is written behind a truncate nobody says that it is gone
}

// TestATruncateInATransactionThatGoesOneByOne: a change of another table cannot go in, so that the transaction is applied in pieces: rows in front of its
// truncate do not come back.
func TestATruncateInATransactionThatGoesOneByOne(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; create table public.odd (like public.acct); alter table public.odd add primary key (id), add unique (v)"), acct()
	odd := acct()
	odd.Name = "odd"
	merge := b.selfMerge()
	b.exec("insert into odd values (9, 'taken', 1, '2024-01-01')")
	g := map[string]uint32{}
	merge(b.tx(g, remove(r, row("1", "old", 1, 1)), remove(odd, row("5", "old", 1, 1)), remove(r, row("2", "old", 1, 1))))
	tx := b.tx(g, insert(r, row("1", "new", 1, 2)), insert(odd, row("5", "taken", 1, 2)), insert(r, row("2", "behind", 1, 2)))
	tx.Changes = slices.Insert(tx.Changes, 2, wal.Change{Op: wal.Truncate, Relation: r})
	merge(tx)
	b.want("select string_agg(table_name || key, ' ') from pgwaltz.parked", `odd["5"]`)
	b.want("select string_agg(id || v, ' ') from acct", "2behind")
}

// TestOwnRowsInFrontOfATruncateAreNotSetAside: rows that cannot go in, of a table that was truncated behind them in the same transaction.
func TestOwnRowsInFrontOfATruncateAreNotSetAside(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	merge := b.selfMerge()
	g := map[string]uint32{}
	merge(b.tx(g, remove(r, row("1", "old", 1, 1)), remove(r, row("2", "old", 1, 1)), remove(r, row("3", "old", 1, 1))))
	tx := b.tx(g, insert(r, row("1", "new", 1, 2)), remove(r, row("3", "old", 1, 1)), insert(r, row("2", "behind", 1, 2)))
	tx.Changes = slices.Insert(tx.Changes, 1, wal.Change{Op: wal.Truncate, Relation: r})
	b.exec("alter table acct rename to away")
	merge(tx)
	b.want("select string_agg(key || op, ' ' order by key) from pgwaltz.parked", `["2"]insert ["3"]delete`)
}

// TestATruncateOfARenamedTableEndsTheWaiting: the table was renamed between the changes that wait, or before they followed it, and the truncate. What waits under the
// name, of another table, stays.
func TestATruncateOfARenamedTableEndsTheWaiting(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	var oid uint32
	if err := b.conn.QueryRow(t.Context(), "select 'acct'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	for i := range r.Columns {
		r.Columns[i].ID = wal.ColumnID(oid, int16(i+1))
	}
	merge := b.selfMerge()
	b.exec(fmt.Sprintf(`insert into pgwaltz.parked (origin, schema_name, table_name, table_oid, key, commit_lsn, op, sqlstate)
select 'b', 'public', v.name, v.oid::int8::oid, v.key, '0/1', 'insert', 'PW005' from (values ('before', %[1]d, '1'), ('acct', %[1]d, '2'), ('acct', 77, '3'), ('acct', 0, '4'), ('before', 0, '5')) as v(name, oid, key)`, oid))
	b.a.cfg.Parked.Put(wal.RelationName{Schema: "public", Name: "before"}, "1")
	cut := b.tx(nil)
	cut.Changes = []wal.Change{{Op: wal.Truncate, Relation: r}}
	merge(cut)
	b.want("select string_agg(key, ' ' order by key) from pgwaltz.parked", "3 5")
}

// TestATruncateBehindTheWait: the table is truncated between the wait for what is stamped and the look at its rows.
func TestATruncateBehindTheWait(t *testing.T) {
	t.Parallel()
	for _, ddl := range []string{acctDDL, acctDDL + " partition by range (id); create table public.low partition of acct for values from (0) to (10)"} {
		b, r := newBench(t, ddl), acct()
		r.Partitioned = ddl != acctDDL
		var born *wal.Transaction
		waits := 0
		merge := b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) {
			now, err := tombstone.ReadSnapshot(ctx, b.conn)
			switch waits++; {
			case err != nil || born == nil:
			case born.Part == 0: // it is not stamped yet
				b.exec("truncate acct")
				born.Part = 1
			default:
				b.idx.Truncated(r.Ref(), tombstone.Place{Commit: born.CommitLSN + 1})
			}
			return now, err
		})
		g := map[string]uint32{}
		merge(b.tx(g, remove(r, row("1", "old", 1, 1))))
		tx := b.tx(g, insert(r, row("1", "new", 1, 2)))
		born = &wal.Transaction{CommitLSN: tx.CommitLSN}
		merge(tx)
		b.want("select count(*) from acct", "0")
	}
}
