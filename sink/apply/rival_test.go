package apply

import (
	"context"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// from makes the changes to come those of another region.
func (b *bench) from(origin string) {
	b.t.Helper()
	b.exec("update pgwaltz.checkpoint set origin = '" + origin + "'")
	b.a.cfg.Origin, b.a.cp.Origin = origin, origin
}

// copied applies a transaction as rows of a copy.
func (b *bench) copied(tx *wal.Transaction) {
	b.t.Helper()
	if err := b.a.Apply(b.t.Context(), []Unit{{Transactions: []*wal.Transaction{tx}, Kind: conflict.Copy, Next: after(b.a, tx)}}); err != nil {
		b.t.Fatal(err)
	}
}

// Changes of two origins that meet on a key which cannot be shown here: the one that loses is
// in the log, whichever comes first, and also when the winner goes in.
func TestParkedRivalsAreRecorded(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	for _, id := range []string{"1", "2", "3", "4"} {
		b.apply(b.tx(nil, insert(r, row(id, "bad", 5, 5))))
	}
	b.from("c")
	b.apply(b.tx(nil, insert(r, row("1", "worse", 3, 3)))) // loses
	b.apply(b.tx(nil, insert(r, row("2", "worse", 7, 7)))) // takes the place
	b.apply(b.tx(nil, insert(r, row("3", "good", 9, 9))))  // goes in and releases it
	b.apply(b.tx(nil, insert(r, row("4", "bad", 5, 5))))   // the same entry
	b.want("select string_agg(key->>'id' || ' ' || type || ' ' || verdict || ' ' || winner || '>' || loser, ', ' order by id) from pgwaltz.conflict",
		"1 insert_exists keep a>c, 2 insert_exists apply c>a, 3 insert_exists apply c>a")
	b.want("select count(distinct event_id), string_agg(coalesce(local_row->>'v', '') || '/' || coalesce(remote_row->>'v', ''), ' ' order by id) from pgwaltz.conflict", "3|bad/worse bad/worse bad/good")
	b.want("select string_agg(key || version || origin, ' ' order by key) from pgwaltz.parked", `["1"]5a ["2"]7c ["4"]5c`)
	// A later change of the same origin over what waits is no conflict.
	b.apply(b.tx(nil, update(r, row("2", "worse", 7, 7), row("2", "bad", 8, 8))))
	b.want("select count(*) from pgwaltz.conflict", "3")
}

// A change waits that was made before its table was altered at the other origin: the columns stand in another order. The
// notice of the conflict has the values under their own names, and makes sense to the peers.
func TestANoticeOfWhatWaitsFollowsItsRelation(t *testing.T) {
	t.Parallel()
	old := &wal.Relation{Schema: "public", Name: "t", PrimaryKey: []int{1}, Columns: []wal.Column{{Name: "c", OID: 701}, {Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25}}}
	now := &wal.Relation{Schema: "public", Name: "t", PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}, {Name: "v", OID: 25}, {Name: "c", OID: 1560}}}
	text := func(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }
	w := &conflict.Waiting{Relation: old, Op: wal.Insert, Image: wal.Tuple{{Kind: wal.Null}, text("1"), text("x")}}
	got := described(w, now, wal.Tuple{text("1"), {Kind: wal.Null}, {Kind: wal.Null}})
	if string(got[0].Bytes) != "1" || string(got[1].Bytes) != "x" || got[2].Kind != wal.Null {
		t.Errorf("got %v", got)
	}
	n := wal.Notice{Relation: now, Yours: wal.Entry{Known: true, Alive: true, Row: got}}
	if err := wire.CheckNotice(&n); err != nil {
		t.Error(err)
	}
}

// What waits was not compared with anything here. Where a later change of its origin ends its waiting and was not made over it,
// another region's row was put over it there, which may have passed for its successor: the log of this region says that it is lost.
func TestParkedIsLostToWhatWasNotMadeOverIt(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	for _, id := range []string{"1", "2", "3", "4", "5", "6"} {
		b.apply(b.tx(nil, insert(r, row(id, "0", 1, 1))))
		b.apply(b.tx(nil, update(r, row(id, "0", 1, 1), row(id, "bad", 7, 7))))
	}
	b.exec("update acct set v = 'ours', version = 5 where id in (1, 2)")
	ours, other := text("1", "ours", "5", "2024-01-01 00:00:00+00"), func(id string) wal.Tuple { return row(id, "other", 6, 6) }
	b.slot()
	b.apply(b.tx(nil, update(r, ours, row("1", "later", 8, 8))))                  // over the row here
	b.apply(b.tx(nil, update(r, other("2"), row("2", "later", 8, 8))))            // over one that is not here
	b.apply(b.tx(nil, update(r, other("3"), row("3", "worse", 8, 8))))            // the same, and it waits, too
	b.apply(b.tx(nil, update(r, row("4", "bad", 7, 7), row("4", "later", 8, 8)))) // over what waits
	b.apply(b.tx(map[string]uint32{"5": 1}, insert(r, row("5", "later", 0, 8))))  // where another region's delete was
	b.apply(b.tx(nil, update(r, nil, row("6", "later", 8, 8))))                   // nobody knows over what
	b.want("select string_agg(concat_ws(' ', key->>'id', type, verdict, reason, winner || '>' || loser, local_row->>'v' || '/' || (remote_row->>'v')), ', ' order by id) from pgwaltz.conflict",
		"1 update_origin_differs keep parked b>a ours/bad, 2 update_origin_differs apply version a>b ours/later, 2 update_origin_differs apply parked a>a bad/later, "+
			"3 update_origin_differs apply parked a>a bad/worse, 5 insert_exists apply generation a>b 0/later, 5 insert_exists apply parked a>a bad/later")
	b.want("select string_agg(key || version, ' ' order by key) from pgwaltz.parked", `["3"]8`)
	b.want(acctRows, "1|later|8;2|later|8;3|0|1;4|later|8;5|later|0;6|later|8")
	b.wantTold("a told insert_exists 1: 5=later against 5=0", "a told insert_exists 1: 5=later against 5=bad", "a told update_origin_differs 1: 2=later against 2=bad",
		"a told update_origin_differs 1: 2=later against 2=ours", "a told update_origin_differs 1: 3=worse against 3=bad", "a told update_origin_differs 2: 1=bad against 1=ours")
}

// An own change was made before another region's change came, which waits, and is above that. The log says that it is lost, also
// where the own change looks as if it had been made over it: another row had that stamp.
func TestParkedIsLostToAnOwnChange(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1)), insert(r, row("2", "0", 1, 1))))
	b.apply(b.tx(nil, update(r, row("1", "0", 1, 1), row("1", "bad", 3, 3)), update(r, row("2", "0", 1, 1), row("2", "bad", 3, 3))))
	b.exec("update acct set v = 'mine', version = 5, updated_at = '2024-01-05 00:00:00+00'")
	mine := b.tx(map[string]uint32{"1": 1, "2": 1}, update(r, row("1", "0", 1, 1), row("1", "mine", 5, 5)), update(r, row("2", "same", 3, 3), row("2", "mine", 5, 5)))
	mine.Changes[1].Base.Stamp.Generation = 0
	b.slot()
	merge := b.selfMergeWith(func(ctx context.Context) (*tombstone.Snapshot, error) { return tombstone.ReadSnapshot(ctx, b.conn) })
	merge(mine)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select string_agg(concat_ws(' ', key->>'id', type, verdict, reason, winner || '>' || loser, local_row->>'v' || '/' || (remote_row->>'v')), ', ' order by id) from pgwaltz.conflict",
		"1 update_origin_differs apply parked b>a bad/mine, 2 update_origin_differs apply parked b>a bad/mine")
	b.wantTold("a told update_origin_differs 2: 1=bad against 1=mine", "a told update_origin_differs 2: 2=bad against 2=mine",
		"c told update_origin_differs 2: 1=bad against 1=mine", "c told update_origin_differs 2: 2=bad against 2=mine", "repair update 1=mine", "repair update 2=mine")
}

// Two origins set changes of one key aside at once; neither sees that of the other when it looks.
// The higher one stays, and the other one is in the log.
func TestParkedAtOnce(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]int{"the second is lower": 3, "the second is higher": 9} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
			c := b.third()
			first, last := halves(b.tx(nil, insert(r, row("1", "bad", 5, 5)), insert(r, row("9", "c", 1, 1))))
			if err := deliver(t, c, first); err != nil {
				t.Fatal(err)
			}
			second := b.tx(nil, insert(r, row("1", "worse", version, version)))
			done := make(chan error, 1)
			unit := Unit{Transactions: []*wal.Transaction{second}, Next: after(b.a, second)}
			go func() { done <- b.a.Apply(t.Context(), []Unit{unit}) }()
			for waits := "0"; waits == "0"; {
				waits = b.query("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
			}
			if err := deliver(t, c, last); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if version < 5 {
				b.want("select key || version || origin from pgwaltz.parked", `["1"]5c`)
				b.want("select verdict || ' ' || winner || '>' || loser from pgwaltz.conflict", "keep c>a")
				return
			}
			b.want("select key || version || origin from pgwaltz.parked", `["1"]9a`)
			b.want("select verdict || ' ' || winner || '>' || loser from pgwaltz.conflict", "apply a>c")
		})
	}
}

// Of one origin an earlier change waits, and a later one does not rise above it, because the WAL does
// not say what it overwrote. The origin holds the later one, so the earlier one waits no longer.
func TestParkedGivesWayToItsSuccessor(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1)), insert(r, row("2", "0", 1, 1)), insert(r, row("3", "0", 6, 6)), insert(r, row("4", "0", 1, 1))))
	for _, id := range []string{"1", "2", "3", "4"} {
		b.apply(b.tx(nil, update(r, nil, row(id, "bad", 7, 7))))
	}
	b.apply(b.tx(nil, update(r, nil, row("1", "low", 3, 3))))   // it is shown
	b.apply(b.tx(nil, update(r, nil, row("2", "worse", 4, 4)))) // it is not shown
	b.apply(b.tx(nil, update(r, nil, row("3", "low", 5, 5))))   // it loses
	b.want(acctRows, "1|low|3;2|0|1;3|0|6;4|0|1")
	b.want("select string_agg(key || version, ' ' order by key) from pgwaltz.parked", `["2"]4 ["4"]7`)
	// A change of another region says nothing of what this one holds.
	b.from("c")
	b.apply(b.tx(nil, update(r, nil, row("4", "low", 3, 3))))
	b.want("select string_agg(key || version, ' ' order by key) from pgwaltz.parked", `["2"]4 ["4"]7`)
}

// A repair that waits is not given up for a later change of the region that sent it: the row is another
// region's. When it goes in, the others are told.
func TestParkedRepairStays(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1))))
	repair := b.tx(nil, update(r, nil, row("1", "bad", 7, 7)))
	repair.Applied, repair.Changes[0].Repair = true, true
	b.apply(repair)
	b.slot()
	b.apply(b.tx(nil, update(r, nil, row("1", "low", 3, 3))))
	b.want("select version from pgwaltz.parked", "7")
	b.wantTold("")
	b.exec("alter table acct drop constraint no")
	b.retry()
	b.want(acctRows, "1|bad|7")
	b.wantTold("a told update_origin_differs 1: 1=bad against 1=low", "repair update 1=bad")
}

// An insert and a delete that wait together have overwritten nothing: what they meet here is a
// conflict, as it is where they did not wait. A delete and an insert are the successor of what the delete
// removed.
func TestParkedNetEffects(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; create function no() returns trigger language plpgsql as 'begin raise check_violation; end'"), acct()
	b.apply(b.tx(nil, insert(r, row("2", "0", 1, 1)), insert(r, row("3", "0", 1, 1))))
	b.exec("insert into acct values (1, 'ours', 1, '2024-01-01 00:00:00+00')")
	b.exec("create trigger no before insert or update or delete on acct for each row execute function no(); alter table acct enable always trigger no")
	g := map[string]uint32{"1": 1}
	b.apply(b.tx(g, insert(r, row("1", "theirs", 1, 1))))
	b.apply(b.tx(g, remove(r, row("1", "theirs", 1, 1))))
	g = map[string]uint32{}
	b.apply(b.tx(g, remove(r, row("2", "0", 1, 1))))
	b.apply(b.tx(g, insert(r, row("2", "again", 0, 1))))
	g = map[string]uint32{}
	b.apply(b.tx(g, remove(r, row("3", "0", 1, 1))))
	b.apply(b.tx(g, insert(r, row("3", "again", 0, 1))))
	b.apply(b.tx(g, remove(r, row("3", "again", 0, 1))))
	b.want("select string_agg(key || ' ' || op || ' ' || born, ', ' order by key) from pgwaltz.parked", `["1"] delete true, ["2"] update false, ["3"] delete false`)
	b.want("select count(*) from pgwaltz.conflict", "0")
	b.exec("drop trigger no on acct")
	re := b.retrier()
	b.turns(re, 4)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want(acctRows, "2|again|0")
	b.want("select string_agg(key->>'id' || ' ' || type || ' ' || verdict, ', ' order by key->>'id') from pgwaltz.conflict", "1 delete_origin_differs apply")
	b.want("select string_agg(key || generation, ' ' order by key) from pgwaltz.tombstone where not live", `["1"]1 ["3"]1`)
}

// What waits of an origin that begins anew behind a gap it may have lost, in a restore. Whoever shows it
// sends it back, in whatever way it would have gone in; and a later change of that origin does not end
// its waiting.
func TestStraysAreSentBack(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1)), insert(r, row("3", "0", 1, 1)), insert(r, row("4", "0", 1, 1))))
	b.apply(b.tx(nil, update(r, row("1", "0", 1, 1), row("1", "bad", 7, 7)), insert(r, row("2", "bad", 1, 1)), update(r, row("3", "0", 1, 1), row("3", "bad", 7, 7))))
	next := b.a.Checkpoint()
	next.Incarnation, next.FrameNo = 2, 1
	if err := b.a.Apply(t.Context(), []Unit{{Next: next, Resync: true}}); err != nil {
		t.Fatal(err)
	}
	b.apply(b.tx(nil, update(r, nil, row("3", "low", 3, 3)), update(r, row("4", "0", 1, 1), row("4", "bad", 7, 7)))) // 4 is of the new history
	b.want("select string_agg(key || held, ' ' order by key) from pgwaltz.parked", `["1"]true ["2"]true ["3"]true ["4"]false`)
	b.slot()
	b.exec("alter table acct drop constraint no")
	b.turns(b.retrier(), 4)
	b.want(acctRows, "1|bad|7;2|bad|1;3|bad|7;4|bad|7")
	b.wantTold("a told update_origin_differs 1: 3=bad against 3=low", "repair update 1=bad", "repair update 2=bad", "repair update 3=bad")
}

// A change that waits as another region's repair is held there. When it comes from its origin, too, a later
// change of that, which does not rise, does not end its waiting: the repair will not come again.
func TestParkedRepairIsHeldElsewhere(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1))))
	b.from("c")
	repair := b.tx(nil, update(r, nil, row("1", "bad", 7, 7)))
	repair.Applied, repair.Changes[0].Repair = true, true
	b.apply(repair)
	b.from("a")
	b.apply(b.tx(nil, update(r, row("1", "0", 1, 1), row("1", "bad", 7, 7))))
	b.want("select version, held, origin from pgwaltz.parked", "7|true|a")
	b.apply(b.tx(nil, update(r, nil, row("1", "worse", 4, 4))))
	b.want("select version, held, origin from pgwaltz.parked", "7|true|a")
	b.exec("alter table acct drop constraint no")
	b.retry()
	b.want(acctRows, "1|bad|7")
	b.want("select type, verdict, remote_row->>'v' from pgwaltz.conflict", "update_origin_differs|keep|worse") // the other one overwrote what was here
}

// A copied row that waits gives way to a later change of the region that it was copied from, as a change does: that
// region holds it no longer.
func TestParkedCopyGivesWayToALaterChange(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 7, 7))))
	b.copied(b.tx(nil, insert(r, row("1", "bad", 7, 7)), insert(r, row("2", "bad", 7, 7)), insert(r, row("3", "bad", 7, 7))))
	b.want("select string_agg(key || version || ' ' || kind, ', ' order by key) from pgwaltz.parked", `["1"]7 1, ["2"]7 1, ["3"]7 1`)
	b.apply(b.tx(nil, update(r, nil, row("1", "worse", 4, 4)), update(r, nil, row("2", "low", 4, 4)))) // the one is not shown, the other is
	b.want("select string_agg(key || version || held, ' ' order by key) from pgwaltz.parked", `["1"]4false ["3"]7false`)
	b.exec("alter table acct drop constraint no")
	b.turns(b.retrier(), 4)
	b.want(acctRows, "1|worse|4;2|low|4;3|bad|7")
}

// A change to which another region's gave way does not give way to a later and lower one of its own origin:
// what was given up for it would be above that. Whoever shows it tells the others.
func TestParkedRivalsStay(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 5, 5)), insert(r, row("2", "bad", 3, 3))))
	b.from("c")
	b.apply(b.tx(nil, insert(r, row("1", "worse", 3, 3)), insert(r, row("2", "worse", 5, 5))))
	b.want("select string_agg(key || version || origin || held, ' ' order by key) from pgwaltz.parked", `["1"]5atrue ["2"]5ctrue`)
	b.apply(b.tx(nil, update(r, nil, row("2", "low", 1, 1))))
	b.from("a")
	b.apply(b.tx(nil, update(r, nil, row("1", "worse", 1, 1))))
	b.want("select string_agg(key || version || origin || held, ' ' order by key) from pgwaltz.parked", `["1"]5atrue ["2"]5ctrue`)
	b.slot()
	b.exec("alter table acct drop constraint no")
	b.turns(b.retrier(), 4)
	b.want("select v, version from acct where id = 1", "bad|5")
	b.wantTold("repair update 1=bad")
}

// A change of another origin that has taken the place, and the id, of one that was listed is not taken for it.
func TestARetrierTakesItsOwnOriginsChanges(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 1, 1))))
	retrier := b.retrier()
	b.turns(retrier, 1)
	b.exec("alter table acct drop constraint no; update pgwaltz.parked set origin = 'c'")
	var id int64
	if err := b.a.conn.QueryRow(t.Context(), "select id from pgwaltz.parked").Scan(&id); err != nil {
		t.Fatal(err)
	}
	if n, err := retrier.try(t.Context(), []int64{id}, false); n != 0 || err != nil {
		t.Errorf("%d changes of another origin went in, %v", n, err)
	}
	b.want("select origin from pgwaltz.parked", "c")
	b.want("select count(*) from acct", "0")
}
