package apply

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// went applies a transaction, and says whether it went out at once.
func (b *bench) went(txs ...*wal.Transaction) bool {
	b.t.Helper()
	var keyed []keyedTx
	for _, tx := range txs {
		keyed = append(keyed, keyedTx{tx: tx})
	}
	done, err := b.a.applyAtOnce(b.t.Context(), keyed, after(b.a, txs[len(txs)-1]))
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// Inserts and updates that need no decision take one round trip, whatever the number of tables.
func TestASmallBatchTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 3} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			b, r := newBench(t, acctDDL+"; create table public.acct2 (like public.acct including all)"), acct()
			r2 := acct()
			r2.Name = "acct2"
			trips := b.countTrips()
			took := int64(1000)
			for n := range 4 { // statements are prepared at their first use, and definitions looked at now and then
				var put, change []wal.Change
				for i := range rows {
					rel, id := []*wal.Relation{r, r2}[i%2], fmt.Sprint(10*n+i)
					put = append(put, insert(rel, row(id, "a", 1, 1)))
					change = append(change, update(rel, row(id, "a", 1, 1), row(id, "it's", 2, 2)))
				}
				before := trips.Load()
				b.apply(b.tx(nil, put...))
				b.apply(b.tx(nil, change...))
				took = min(took, trips.Load()-before)
			}
			if took != 2 {
				t.Errorf("two transactions took %d round trips", took)
			}
			b.want("select count(*), max(version), max(v) from (select * from acct union all select * from acct2) as x", fmt.Sprintf("%d|2|it's", 4*rows))
			b.want("select frame_no, transactions from pgwaltz.checkpoint", "8|8")
			if n := b.a.Stats.Rows.Load(); n != uint64(8*rows) {
				t.Errorf("%d rows are counted", n)
			}
		})
	}
}

// What needs a decision, or writes something beside the rows, does not go out at once; and of what was tried nothing is left.
func TestWhatNeedsADecisionGoesTheOtherWay(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "a", 1, 1)), insert(r, row("3", "a", 1, 1))))
	for _, c := range []struct {
		what    string
		local   string
		changes []wal.Change
	}{
		{"another row is there", "insert into acct values (5, 'local', 3, '2024-01-05')", []wal.Change{insert(r, row("5", "a", 1, 1))}},
		{"another row is there, beside one that can be put", "", []wal.Change{insert(r, row("6", "a", 1, 1)), insert(r, row("5", "a", 1, 1))}},
		{"the row is another one by now", "update acct set v = 'local', version = 4 where id = 1", []wal.Change{update(r, row("1", "a", 1, 1), row("1", "b", 2, 2))}},
		{"the same, beside one that is not", "", []wal.Change{update(r, row("2", "a", 1, 1), row("2", "b", 2, 2)), update(r, row("1", "a", 1, 1), row("1", "b", 2, 2))}},
		{"the row is gone", "delete from acct where id = 3", []wal.Change{update(r, row("3", "a", 1, 1), row("3", "b", 2, 2))}},
		{"a delete", "", []wal.Change{remove(r, row("2", "a", 1, 1))}},
		{"a row of a later life", "", []wal.Change{{Op: wal.Insert, Relation: r, New: row("7", "a", 1, 1), Stamp: wal.Stamp{Generation: 1}}}},
	} {
		if c.local != "" {
			b.exec(c.local)
		}
		before := b.query(acctRows)
		at := b.a.Checkpoint()
		tx := b.tx(map[string]uint32{"7": 1}, c.changes...)
		b.a.rest = rest{}
		if b.went(tx) {
			t.Errorf("%s: it went out at once", c.what)
		}
		b.want(acctRows, before)
		if now := b.a.Checkpoint(); now != at {
			t.Errorf("%s: the checkpoint moved", c.what)
		}
	}
	b.want("select count(*) from pgwaltz.conflict", "0")
	b.want("select frame_no from pgwaltz.checkpoint", "1")
	b.apply(b.tx(nil, insert(r, row("5", "a", 1, 1)), insert(r, row("8", "a", 1, 1))))
	b.want("select type, verdict, key::text from pgwaltz.conflict", `insert_exists|keep|{"id": 5}`)
	b.want("select v from acct where id in (5, 8) order by id", "local;a")
}

// Behind batches that failed the next ones are not tried, ever longer; each leaves an error in the server's log.
func TestBatchesThatFailRest(t *testing.T) {
	t.Parallel()
	var r rest
	rests := []int{}
	for range 9 {
		r.failed()
		rests = append(rests, r.left)
	}
	if fmt.Sprint(rests) != "[1 2 4 8 16 32 64 64 64]" {
		t.Errorf("they rest for %v", rests)
	}
	for range 16 {
		r.succeeded()
	}
	if r.failed(); r.left != 32 {
		t.Errorf("behind 16 that went in, and one that did not: %d", r.left)
	}
	r, rests = rest{}, nil
	for range 5 {
		r.unwritten()
		rests = append(rests, r.left)
	}
	if fmt.Sprint(rests) != "[0 1 1 2 2]" {
		t.Errorf("single rows that are not written rest for %v", rests)
	}
	r = rest{}
	for range 9 { // every other one
		r.unwritten()
		r.succeeded()
		r.unwritten()
		r.succeeded()
		if r.left != 0 {
			t.Fatal("single rows of which every other one goes in rest")
		}
	}
}

// Of single rows that all lose few are tried in vain, and nothing is left of these in the table.
func TestSingleRowsThatLoseRest(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	const rows = 40
	b.exec("insert into acct select n, 'local', 3, '2024-01-05' from generate_series(1, " + fmt.Sprint(rows) + ") as n")
	b.apply(b.tx(nil, insert(r, row("100", "a", 1, 1)))) // what is prepared and read once
	before := b.a.Stats.Batches.Load()
	tried := 0
	for n := 1; n <= rows; n++ {
		if b.a.rest.left == 0 {
			tried++
		}
		b.apply(b.tx(nil, insert(r, row(fmt.Sprint(n), "a", 1, 1))))
	}
	if n := b.a.Stats.Batches.Load() - before; n != rows {
		t.Errorf("%d batches went in", n)
	}
	if tried > 12 { // two, and then two behind 1, 2, 4, 8 and 16
		t.Errorf("%d of %d single rows that lose were tried at once", tried, rows)
	}
	b.want("select count(*) from acct where v = 'local'", fmt.Sprint(rows))
	b.want("select count(*) from pgwaltz.conflict where verdict = 'keep'", fmt.Sprint(rows))
	b.want("select transactions from pgwaltz.checkpoint", fmt.Sprint(rows+1))
}

// A statement that goes out with the commit is the same one whatever was done to its table: else each ALTER TABLE would leave one behind in the session.
func TestAlteringATableLeavesNoStatementsBehind(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	put := 0
	count := func() int {
		for _, rows := range []int{1, 2} {
			var changes []wal.Change
			for range rows {
				put++
				changes = append(changes, insert(r, row(fmt.Sprint(put), "a", 1, 1)))
			}
			b.a.rest = rest{}
			if !b.went(b.tx(nil, changes...)) {
				t.Fatalf("%d rows did not go out at once", rows)
			}
			for i := range changes {
				id := fmt.Sprint(put - i)
				changes[i] = update(r, row(id, "a", 1, 1), row(id, "b", 2, 2))
			}
			if !b.went(b.tx(nil, changes...)) {
				t.Fatalf("%d rows that are changed did not go out at once", rows)
			}
		}
		return len(b.a.prepared)
	}
	before := count()
	for n := range 5 {
		b.exec(fmt.Sprintf("alter table acct alter column v set statistics %d; create trigger t%d after insert on acct execute function suppress_redundant_updates_trigger()", n+1, n))
		b.a.forgetSchemas()
		if now := count(); now != before {
			t.Errorf("%d statements are prepared, and %d were before the table was altered", now, before)
		}
	}
	b.want("select count(*) from acct where v = 'b'", fmt.Sprint(put))
}

// A second applier is found out, and leaves nothing.
func TestAtOnceIsFenced(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 2} {
		b, r := newBench(t, acctDDL), acct()
		b.exec("update pgwaltz.checkpoint set frame_no = 7")
		var changes []wal.Change
		for i := range rows {
			changes = append(changes, insert(r, row(fmt.Sprint(i), "a", 1, 1)))
		}
		if err := b.tryApply(b.tx(nil, changes...)); !errors.Is(err, pgstore.ErrFenced) {
			t.Errorf("%d rows: %v", rows, err)
		}
		b.want("select count(*) from acct", "0")
		b.want("select frame_no from pgwaltz.checkpoint", "7")
	}
}

// A table that was altered since it was read is not written by what was known of it.
func TestAtOnceSeesWhatWasAltered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, alter string }{
		{"two columns swap their names", "alter table acct rename v to x; alter table acct rename w to v; alter table acct rename x to w"},
		{"a column is dropped, and another one gets its name", "alter table acct drop column w; alter table acct add column w text"},
		{"a column gets another type", "alter table acct alter column w type varchar(2)"},
		{"a trigger fires for applied rows", `create function f() returns trigger language plpgsql as $$begin new.version := 99; return new; end$$;
			create trigger g before insert or update on acct for each row execute function f(); alter table acct enable always trigger g`},
		{"a trigger that was there fires for applied rows", "alter table acct enable always trigger idle"},
		{"a constraint is deferrable", "alter table acct add constraint u unique (w) deferrable initially deferred"},
	} {
		for _, rows := range []int{1, 2} {
			t.Run(fmt.Sprint(c.what, " ", rows), func(t *testing.T) {
				t.Parallel()
				b, r := newBench(t, `create table public.acct(id int primary key, v text, version bigint, updated_at timestamptz, w text);
					create function idle() returns trigger language plpgsql as $$begin new.v := 'changed'; return new; end$$;
					create trigger idle before insert or update on public.acct for each row execute function idle();
					alter table public.acct disable trigger idle`), acct()
				r.Columns = append(r.Columns, wal.Column{Name: "w", OID: 25, Key: true})
				full := func(id int) wal.Tuple {
					return text(fmt.Sprint(id), "v", "1", "2024-01-01 00:00:00+00", fmt.Sprint("w", id))
				}
				if !b.went(b.tx(nil, insert(r, full(1)))) {
					t.Fatal("the first row did not go out at once")
				}
				b.exec(c.alter)
				rel := b.a.tables[r.Ref()]
				rel.due = time.Now().Add(time.Hour) // it is not looked at again by itself
				var changes []wal.Change
				for i := range rows {
					changes = append(changes, insert(r, full(2+i)))
				}
				if b.went(b.tx(nil, changes...)) {
					t.Error("a new row went in")
				}
				if b.a.rest = (rest{}); b.went(b.tx(nil, update(r, full(1), text("1", "v2", "2", "2024-01-02 00:00:00+00", "w2")))) {
					t.Error("a changed row went in")
				}
				b.want("select count(*), max(version) from acct", "1|1")
			})
		}
	}
}

// A table that has given its name to another one is not written by what was known of it, and the other one by nothing of that.
func TestAtOnceSeesThatANamePassed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, alter string }{
		{"two tables swap their names", "alter table acct set schema c; alter table b.acct set schema public; alter table c.acct set schema b"},
		{"a copy takes the place of the table", "alter table acct set schema c; create table acct (like c.acct including all); insert into acct select * from c.acct"},
		{"two schemas swap their names", "alter schema public rename to x; alter schema b rename to public; alter schema x rename to b"},
	} {
		for _, rows := range []int{1, 2} {
			t.Run(fmt.Sprint(c.what, " ", rows), func(t *testing.T) {
				t.Parallel()
				b, r := newBench(t, acctDDL+"; create schema b; create schema c; create table b.acct (like public.acct including all); insert into b.acct values (1, 'b', 1, '2024-01-01')"), acct()
				if !b.went(b.tx(nil, insert(r, row("1", "a", 1, 1)))) {
					t.Fatal("the first row did not go out at once")
				}
				b.exec(c.alter)
				b.a.tables[r.Ref()].due = time.Now().Add(time.Hour) // it is not looked at again by itself
				var changes []wal.Change
				for i := range rows {
					changes = append(changes, insert(r, row(fmt.Sprint(2+i), "a", 1, 1)))
				}
				if b.went(b.tx(nil, changes...)) {
					t.Error("a new row went in")
				}
				if b.a.rest = (rest{}); b.went(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "new", 2, 2)))) {
					t.Error("a changed row went in")
				}
				b.want("select count(*), max(version) from public.acct", "1|1")
			})
		}
	}
}

// waits returns once a session waits for a lock.
func (b *bench) waits(pid uint32) {
	b.t.Helper()
	for {
		if b.query(fmt.Sprintf("select count(*) from pg_locks where pid = %d and not granted", pid)) == "1" {
			return
		}
		if err := pause.For(b.t.Context(), 5*time.Millisecond); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Another applier takes the row of a key away, and writes its tombstone, while a row that comes waits for it. The index did not know of that
// when it was asked.
func TestAtOnceMeetsATombstoneThatComesMeanwhile(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 2} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			b, r := newBench(t, acctDDL), acct()
			if !b.went(b.tx(nil, insert(r, row("1", "b", 1, 1)))) {
				t.Fatal("the first row did not go out at once")
			}
			other, err := pgx.Connect(t.Context(), b.dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close(context.Background())
			for _, sql := range []string{"begin", "delete from public.acct where id = 1"} {
				if _, err := other.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			changes := []wal.Change{insert(r, row("1", "a", 2, 2)), insert(r, row("2", "a", 2, 2))}[:rows]
			tx, went := b.tx(nil, changes...), make(chan bool, 1)
			go func() { went <- b.went(tx) }()
			b.waits(b.a.conn.PgConn().PID())
			b.idx.Put(r.Ref(), []byte(`["1"]`), conflict.Item{LSN: 16, Next: 1})
			for _, sql := range []string{`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, origin, lsn) values ('public.acct', '["1"]', 0, 5, 1704067200000000, 'c', '0/10')`, "commit"} {
				if _, err := other.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			if <-went {
				t.Error("a row was put over a tombstone that nobody looked at")
			}
			b.want("select count(*) from acct", "0")
		})
	}
}

// Who writes a tombstone where no row is waits for what is out.
func TestAtOnceIsAnnounced(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	c := b.third()
	if !b.went(b.tx(nil, insert(r, row("1", "b", 1, 1)))) {
		t.Fatal("the first row did not go out at once")
	}
	other, err := pgx.Connect(t.Context(), b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	for _, sql := range []string{"begin", "insert into public.acct values (2, 'local', 1, '2024-01-01')"} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	tx, went := b.tx(nil, insert(r, row("2", "a", 2, 2))), make(chan bool, 1)
	go func() { went <- b.went(tx) }()
	b.waits(b.a.conn.PgConn().PID())
	gone := b.tx(nil, remove(r, row("2", "a", 2, 2)))
	if err := c.attempt(t.Context(), []keyedTx{{tx: gone}}, after(c, gone), false, &effects{}); !errors.Is(err, errRace) {
		t.Errorf("a delete of the row that is out looked before it: %v", err)
	}
	if err := c.rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if !<-went {
		t.Error("the row did not go in")
	}
	b.want("select v from acct where id = 2", "a")
}

// What is left of the time when a table had no stamp columns says nothing of its rows.
func TestAtOncePassesPlainEntries(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.exec(`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn, plain) select 'public.acct', '["' || i || '"]', -1, 0, 1704067200000000, true, 'b', '0/10', true from generate_series(1, 2) as i`)
	if !b.went(b.tx(nil, insert(r, row("1", "a", 1, 1)))) {
		t.Error("a new row did not go out at once")
	}
	if !b.went(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2)), insert(r, row("2", "a", 1, 1)))) {
		t.Error("rows did not go out at once")
	}
	b.want(acctRows, "1|b|2;2|a|1")
}

// What has become known of a key since the batch was planned keeps it from going out.
func TestAtOnceAsksAgainBehindItsAnnouncement(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	for _, tx := range []*wal.Transaction{b.tx(nil, insert(r, row("2", "a", 1, 1))), b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2)))} {
		b.a.batch.Reset()
		b.a.batch.AddPicked(tx, conflict.Live, nil)
		runs := []putRun{{b.a.batch.Groups[0], 0}}
		if !b.a.alone(runs) {
			t.Fatal("nothing is known, and it does not go out")
		}
		key := fmt.Sprintf(`["%s"]`, tx.Changes[0].New[0].Bytes)
		b.idx.Suspect("c", r.Ref(), key, conflict.Item{LSN: 16, Next: 1})
		if b.a.alone(runs) {
			t.Errorf("%s: another applier writes an entry of the key", key)
		}
		b.idx.Settle("c", false)
		if !b.a.alone(runs) {
			t.Errorf("%s: nothing is known any more, and it does not go out", key)
		}
	}
}
