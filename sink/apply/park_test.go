package apply

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

func keylessRel() *wal.Relation {
	return &wal.Relation{Schema: "public", Name: "k", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 25, Key: true}}}
}

// retrier is one that keeps its session and what it remembers.
func (b *bench) retrier() *Retrier {
	r := patientRetrier(b.a.cfg)
	b.t.Cleanup(r.a.Close)
	return r
}

// turns lets a retrier look at every queue, due or not.
func (b *bench) turns(r *Retrier, n int) {
	b.t.Helper()
	for range n {
		for _, q := range r.queues {
			q.due = q.moved
		}
		r.pause, r.lookAgain = 0, 0
		if err := r.Turn(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) xid() int {
	b.t.Helper()
	n, err := strconv.Atoi(b.query("select pg_snapshot_xmax(pg_current_snapshot())::text"))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// The bad changes of a transaction are found and parked; the others go in, and each finds what
// the ones before it left beside the rows.
func TestOneByOneFindsTheBadOnes(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	g := map[string]uint32{}
	b.apply(b.tx(g, insert(r, row("1", "a", 1, 1))))
	b.exec("delete from acct where id = 1")
	var chs []wal.Change
	chs = append(chs, update(r, row("1", "a", 1, 1), row("1", "b", 10, 2)), remove(r, row("1", "b", 10, 2)))
	for i := 100; i < 300; i++ {
		v := "good"
		if i == 100 || i == 177 || i == 299 {
			v = "bad"
		}
		chs = append(chs, insert(r, row(fmt.Sprint(i), v, 1, 1)))
	}
	b.apply(b.tx(g, chs...))
	b.want("select count(*), min(id) from acct", "197|101")
	b.want("select string_agg(key, ',' order by id), min(sqlstate) from pgwaltz.parked", `["100"],["177"],["299"]|23514`)
	b.want("select key, version from pgwaltz.tombstone", `["1"]|11`)
}

// When every change of a table fails, most are parked without being tried.
func TestHopelessTableIsParkedWhole(t *testing.T) { // not parallel: it counts transaction ids
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad'); create table k(a text)"), acct()
	var chs []wal.Change
	for i := range 2000 {
		chs = append(chs, insert(r, row(fmt.Sprint(i), "bad", 1, 1)))
	}
	chs = append(chs, insert(keylessRel(), text("other")))
	before := b.xid()
	b.apply(b.tx(nil, chs...))
	b.want("select count(*), count(*) filter (where sqlstate = '23514' and message like 'not tried%') > 1900 from pgwaltz.parked", "2000|true")
	b.want("select a from k", "other")
	if used := b.xid() - before; used > 400 {
		t.Errorf("%d transaction ids", used)
	}
	b.exec("alter table acct drop constraint no")
	b.turns(b.retrier(), 6)
	b.want("select (select count(*) from acct), count(*) from pgwaltz.parked", "2000|0")
}

// A missing table costs one transaction to park, and nothing to look at afterwards.
func TestMissingTableIsParkedSetWise(t *testing.T) { // not parallel: it counts transaction ids
	b, r := newBench(t, acctDDL), acct()
	gone := *r
	gone.Name = "gone"
	var chs []wal.Change
	for i := range 3000 {
		chs = append(chs, insert(&gone, row(fmt.Sprint(i), "x", 1, 1)))
	}
	before := b.xid()
	b.apply(b.tx(nil, append(chs, insert(keylessRel(), text("p")), insert(keylessRel(), text("p")), insert(r, row("1", "a", 1, 1)))...))
	b.want("select count(*), count(distinct key), min(sqlstate) from pgwaltz.parked", "3002|3002|42P01")
	b.want(acctRows, "1|a|1")
	retrier := b.retrier()
	b.turns(retrier, 5)
	if used := b.xid() - before; used > 2 {
		t.Errorf("%d transaction ids, want one", used)
	}
	b.exec("create table gone(id int primary key, v text, version bigint, updated_at timestamptz); create table k(a text)")
	b.turns(retrier, 8)
	b.want("select (select count(*) from gone), (select count(*) from k), count(*) from pgwaltz.parked", "3000|2|0")
}

// Parked changes of a table without a key stay in order, and a change that may depend on one of
// them waits behind it.
func TestKeylessChangesWaitInOrder(t *testing.T) {
	t.Parallel()
	b, k := newBench(t, "create table k(a text, constraint no check (a <> 'x'))"), keylessRel()
	b.apply(b.tx(nil, insert(k, text("x")), insert(k, text("y"))))
	b.apply(b.tx(nil, remove(k, text("x"))))
	b.want("select op, sqlstate from pgwaltz.parked order by id", "insert|23514;delete|P0002")
	b.retry()
	b.want("select count(*) from pgwaltz.parked", "2")
	b.exec("alter table k drop constraint no")
	b.turns(b.retrier(), 4)
	b.want("select a, (select count(*) from pgwaltz.parked) from k", "y|0")
	b.want("select count(*) from pgwaltz.conflict", "0")
	// With nothing before it, the same delete is a conflict as ever.
	b.apply(b.tx(nil, remove(k, text("x"))))
	b.want("select type, (select count(*) from pgwaltz.parked) from pgwaltz.conflict", "delete_missing|0")
}

// A parked entry is released only by what is at or above it in the table's order.
func TestParkedIsReleasedInOrder(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "bad", 5, 5))))
	b.want("select key, op, version from pgwaltz.parked", `["1"]|update|5`)
	// Another region's delete that does not know of it comes in below it: the row goes, the entry stays.
	b.from("c")
	b.apply(b.tx(nil, remove(r, row("1", "a", 1, 1))))
	b.want("select (select count(*) from acct), version from pgwaltz.parked", "0|5")
	b.from("a")
	b.exec("alter table acct drop constraint no")
	b.turns(b.retrier(), 2)
	b.want(acctRows, "1|bad|5")
	b.want("select count(*) from pgwaltz.parked", "0")
}

// Rows that each wait for a unique value are looked at without transaction ids, and the ones
// that are free are found among many.
func TestUniqueQueueIsScreened(t *testing.T) { // not parallel: it counts transaction ids
	b, r := newBench(t, acctDDL+"; create unique index on acct(v); create unique index on acct(version) where version > 1000000; insert into acct select 10000 + g, 'v' || g, 1, '2024-01-01' from generate_series(0, 699) g"), acct()
	var chs []wal.Change
	for i := range 700 {
		chs = append(chs, insert(r, row(fmt.Sprint(i), fmt.Sprintf("v%d", i), 1, 1)))
	}
	b.apply(b.tx(nil, chs...))
	retrier := b.retrier()
	before := b.xid()
	b.turns(retrier, 3)
	if used := b.xid() - before; used > 3 {
		t.Errorf("%d transaction ids", used)
	}
	b.exec("delete from acct where id in (10650, 10003)")
	b.turns(retrier, 3)
	b.want("select string_agg(id::text, ',' order by id) from acct where id < 1000", "3,650")
	b.want("select count(*) from pgwaltz.parked", "698")
}

// A row that somebody keeps locked is parked; the batch after it does not wait as long.
func TestLockedRowIsParked(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "a", 1, 1))))
	if _, err := b.a.conn.Exec(t.Context(), "set lock_timeout = '100ms'"); err != nil {
		t.Fatal(err)
	}
	holder, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "select from acct where id = 1 for update"); err != nil {
		t.Fatal(err)
	}
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2)), update(r, row("2", "a", 1, 1), row("2", "b", 2, 2))))
	if b.a.hurry.IsZero() {
		t.Error("the next batch would wait as long again")
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want(acctRows, "1|a|1;2|b|2")
	b.want("select key, sqlstate from pgwaltz.parked", `["1"]|55P03`)
	b.retry()
	b.want(acctRows, "1|b|2;2|b|2")
}

// What a deferred constraint raises at COMMIT parks the change that it is about.
func TestDeferredConstraintParksOneChange(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+`; create function bad() returns trigger language plpgsql as 'begin if new.v = ''bad'' then raise exception ''no'' using errcode = ''AC001''; end if; return null; end';
		create constraint trigger bad after insert on acct deferrable initially deferred for each row execute function bad(); alter table acct enable always trigger bad`), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "bad", 1, 1))), b.tx(nil, insert(r, row("3", "b", 1, 1))))
	b.want(acctRows, "1|a|1;3|b|1")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|AC001`)
}

// part applies one part of a transaction of n parts.
func (b *bench) part(whole *wal.Transaction, i, n int) error {
	p := *whole
	p.Changes, p.Part, p.More = whole.Changes[i:i+1], uint32(i), i < n-1
	if p.More {
		p.EndLSN = 0
	}
	next := b.a.Checkpoint()
	next.Epoch = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}
	next.Incarnation, next.FrameNo, next.EndLSN = 1, next.FrameNo+uint64(i)+1, p.EndLSN
	return b.a.Apply(b.t.Context(), []Unit{{Transactions: []*wal.Transaction{&p}, Next: next}})
}

// A giant transaction waits for own changes before its first part, once. Nothing waits
// while it is open, not even one by one behind a row that fails.
func TestGiantTransactionWaitsBeforeItBegins(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	waited := 0
	b.a.cfg.Barrier = func(ctx context.Context) error {
		waited++
		b.want("select count(*) from pg_stat_activity where application_name = 'pgwaltz_b_apply' and state like 'idle in transaction%' and datname = current_database()", "0")
		return nil
	}
	whole := b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "bad", 1, 1)), update(r, row("9", "a", 1, 1), row("9", "b", 2, 2)), insert(r, row("3", "c", 1, 1)))
	for i := range 4 {
		if err := b.part(whole, i, 4); err != nil {
			t.Fatal(err)
		}
	}
	b.want(acctRows, "1|a|1;3|c|1;9|b|2")
	b.want("select key from pgwaltz.parked", `["2"]`)
	if waited != 1 {
		t.Errorf("waited %d times", waited)
	}
}

// Definitions that change under prepared statements park nothing.
func TestPlansArePreparedAgain(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
	b.exec("update acct set v = 'mine', version = 3")
	b.apply(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "b", 2, 2))))
	b.exec("alter table acct alter v type varchar(20)")
	b.apply(b.tx(nil, update(r, row("1", "b", 2, 2), row("1", "c", 4, 4))))
	b.want(acctRows, "1|c|4")
	b.want("select count(*) from pgwaltz.parked", "0")
}

// The filter has no false negatives, in fixed memory.
func TestParkedIndex(t *testing.T) {
	t.Parallel()
	x, rel := parked.NewIndex(), wal.RelationName{Schema: "public", Name: "t"}
	if x.Any(rel) || x.Has(rel, "1") || x.Used() {
		t.Error("an empty index holds something")
	}
	for i := range 100000 {
		x.Put(rel, fmt.Sprint(i))
	}
	wrong := 0
	for i := range 100000 {
		if !x.Has(rel, fmt.Sprint(i)) {
			t.Fatalf("key %d is not found", i)
		}
		if x.Has(rel, fmt.Sprint("other", i)) {
			wrong++
		}
	}
	if wrong > 1000 || x.Has(wal.RelationName{Schema: "public", Name: "u"}, "1") {
		t.Errorf("%d of 100,000 keys look parked and are not", wrong)
	}
	x.Add("a", 3)
	x.Add("a", -5)
	if x.Count("a") != 0 || !x.Any(rel) {
		t.Error("counts go below zero, or the table is forgotten")
	}
}
