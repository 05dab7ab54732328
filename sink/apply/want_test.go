package apply

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// thin is a table of replica identity DEFAULT: what an update overwrote is not known.
func thin() *wal.Relation {
	r := acct()
	r.Identity = wal.IdentityDefault
	for i := range r.Columns {
		r.Columns[i].Key = i == 0
	}
	r.Columns = append(r.Columns, wal.Column{Name: "big", OID: wal.OIDText})
	return r
}

const thinDDL = acctDDL + "; alter table acct add big text"

func thinRow(id, v string, version, day int, big wal.Value) wal.Tuple {
	return append(row(id, v, version, day), big)
}

func digestOf(s string) wal.Value { return wal.Digested([]byte(s)) }

// A change that did not touch a large value is applied where the row has that value, and set
// aside and asked for everywhere else, also where it stands behind others of its batch.
func TestDigests(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	b.slot()
	b.exec("insert into acct values (1,'0',1,'2024-01-01 00:00:00+00','same'), (2,'0',1,'2024-01-01 00:00:00+00','other'), (4,'0',9,'2024-01-09 00:00:00+00','other'), (5,'0',1,'2024-01-01 00:00:00+00',null), (6,'0',2,'2024-01-02 00:00:00+00','other')")
	change := func(id string) wal.Change { return update(r, nil, thinRow(id, "A", 2, 2, digestOf("same"))) }
	lacks := update(r, nil, thinRow("7", "A", 2, 2, wal.Value{Kind: wal.Unchanged}))
	b.exec("insert into acct values (7,'0',1,'2024-01-01 00:00:00+00','same')")
	b.apply(b.tx(nil, change("1"), change("2"), change("3"), change("4"), change("5"), change("6"), lacks))
	b.want("select id, v, version, coalesce(big, '-') from acct order by id", "1|A|2|same;2|0|1|other;4|0|9|other;5|0|1|-;6|0|2|other;7|0|1|same")
	b.want("select key, sqlstate, version from pgwaltz.parked order by key", `["2"]|P0002|2;["3"]|P0002|2;["5"]|P0002|2;["6"]|P0002|2;["7"]|P0002|2`)
	asked := 0
	for _, n := range b.told().notices {
		if n.Outcome == wal.Wanted && n.To == "a" {
			asked++
		}
	}
	if asked != 5 {
		t.Errorf("%d questions, want 5", asked)
	}
	// Nothing is known of them yet but that one row is missing, and that one change has lost.
	b.want("select type from pgwaltz.conflict order by type", "update_missing;update_origin_differs")
	// A whole image makes what follows it in the batch whole; one of another value does not.
	b.apply(b.tx(nil,
		insert(r, thinRow("8", "A", 1, 1, text("same")[0])), update(r, nil, thinRow("8", "B", 2, 2, digestOf("same"))),
		insert(r, thinRow("9", "A", 1, 1, text("old")[0])), update(r, nil, thinRow("9", "B", 2, 2, digestOf("newer")))))
	b.want("select id, v, big from acct where id in (8, 9) order by id", "8|B|same")
	b.want(`select version from pgwaltz.parked where key = '["9"]'`, "2")
	// The row gets the value in another way: what waits goes in.
	b.exec("update acct set big = 'same' where id = 2")
	b.retry()
	b.want("select v, version, big from acct where id = 2", "A|2|same")
	// The answers.
	repair := func(id, v string, version, day int) wal.Change {
		ch := update(r, nil, thinRow(id, v, version, day, text("whole")[0]))
		ch.Repair, ch.Stamp = true, wal.Stamp{Version: int64(version), UpdatedAt: wal.Micros(time.Date(2024, 1, day, 0, 0, 0, 0, time.UTC).UnixMicro())}
		return ch
	}
	// What the origin sends by itself may be stamped too low, and ends no waiting.
	pushed := b.tx(nil)
	pushed.Applied = true
	pushed.Changes = []wal.Change{repair("6", "0", 1, 1)}
	b.apply(pushed)
	b.want(`select version from pgwaltz.parked where key = '["6"]'`, "2")
	answers := b.tx(nil)
	answers.Applied = true
	answers.Changes = []wal.Change{repair("3", "A", 2, 2), repair("5", "A3", 3, 3), repair("6", "0", 1, 1), repair("7", "A", 2, 2), repair("9", "B", 2, 2)}
	for i := range answers.Changes {
		answers.Changes[i].Answer = true
	}
	b.apply(answers)
	b.want("select id, v, version, coalesce(big, '-') from acct where id in (3, 5, 6, 7, 9) order by id", "3|A|2|whole;5|A3|3|whole;6|0|2|other;7|A|2|whole;9|B|2|whole")
	b.want("select count(*) from pgwaltz.parked", "0") // of key 6 the origin holds less than what waited
}

// A change whose origin answers with a tombstone of the same stamp waits for nothing any more.
func TestAnswerOfTheSameStamp(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	change := update(r, nil, thinRow("1", "A", 2, 2, digestOf("same")))
	tx := b.tx(nil, change)
	b.apply(tx)
	b.want("select key, version from pgwaltz.parked", `["1"]|2`)
	gone := remove(r, thinRow("1", "A", 2, 2, text("same")[0]))
	gone.Repair, gone.Stamp = true, tx.Changes[0].Stamp
	told := b.tx(nil)
	told.Applied, told.Changes = true, []wal.Change{gone}
	b.apply(told)
	b.want("select count(*) from pgwaltz.parked", "1") // nobody asked
	answer := b.tx(nil)
	answer.Applied, answer.Changes = true, []wal.Change{gone}
	answer.Changes[0].Answer = true
	b.apply(answer)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select key, live from pgwaltz.tombstone", `["1"]|false`)
}

// A row that is committed, and not visible yet, is not answered for as if it were gone.
func TestAnswersOfUnseenRows(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	b.apply(b.tx(nil, remove(r, thinRow("1", "0", 1, 1, text("gone")[0]))))
	b.slot()
	app, err := b.a.cfg.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	var xid uint32
	if _, err := app.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	if err := app.QueryRow(t.Context(), "select pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	b.idx.Open(wal.XID(xid), 10)
	b.a.cfg.Barrier = func(context.Context) error { return nil }
	ask := func() bool {
		tx := b.tx(nil)
		tx.Applied = true
		tx.Notices = []wal.Notice{{Relation: r, To: "b", Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Row: text("1", "\\N", "\\N", "\\N", "\\N")}}}
		b.apply(tx)
		said := b.told().repairs
		return said[len(said)-1].Answer
	}
	if ask() {
		t.Error("a tombstone is the answer while the row may be committed")
	}
	if _, err := app.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if !ask() {
		t.Error("the tombstone is no answer")
	}
}

// An own change over which something lower was written, before it was known, cannot be put back
// from here when it lacks a value: the others are asked.
func TestSelfMergeAsks(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	b.exec("insert into acct values (1,'remote',1,'2024-01-01 00:00:00+00','other'), (2,'own',2,'2024-01-02 00:00:00+00','same'), (3,'own',2,'2024-01-02 00:00:00+00','same')")
	b.slot()
	merge := b.selfMerge()
	lifted := func(id, v string, big wal.Value) wal.Change {
		return update(r, nil, thinRow(id, v, 2, 2, big))
	}
	merge(b.tx(map[string]uint32{"1": 1, "2": 1, "3": 1}, lifted("1", "own", digestOf("same")), lifted("2", "own", digestOf("same")), lifted("3", "own", wal.Value{Kind: wal.Unchanged})))
	b.want("select id, v, big from acct order by id", "1|remote|other;2|own|same;3|own|same")
	b.wantTold("a told  3: 1= against nothing", "c told  3: 1= against nothing")
	b.want("select key from pgwaltz.tombstone order by key", `["2"];["3"]`) // they count as merged
	b.want("select key, origin, sqlstate from pgwaltz.parked", `["1"]|b|P0002`)

	// They are asked again for what waits for long.
	cfg := b.a.cfg
	cfg.Self, cfg.Origin, cfg.Peers = true, "b", []string{"a", "c"}
	re := patientRetrier(cfg)
	defer re.a.Close()
	b.turns(re, 2)
	for _, q := range re.queues {
		q.moved = q.moved.Add(-2 * retryMax)
	}
	b.turns(re, 2)
	b.wantTold("a told  3: 1= against nothing", "a told  3: 1= against nothing", "c told  3: 1= against nothing", "c told  3: 1= against nothing")

	// Who does not hold it says so; to another question that says nothing, and one of two is not all.
	b.a.cfg.Peers = []string{"a", "c"}
	c := b.third()
	denies := func(a *Applier, asked uint32) {
		lower := update(r, nil, thinRow("1", "remote", 1, 1, text("other")[0]))
		lower.Repair, lower.Answer, lower.Asked = true, true, wal.Stamp{Generation: asked, Version: 2, UpdatedAt: wal.Micros(time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC).UnixMicro())}
		tx := b.tx(nil)
		tx.Applied, tx.Changes = true, []wal.Change{lower}
		if err := a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{tx}, Next: after(a, tx)}}); err != nil {
			t.Fatal(err)
		}
	}
	denies(b.a, 0)
	b.want("select denied from pgwaltz.parked", "[]")
	denies(b.a, 1)
	denies(b.a, 1)
	b.want("select denied from pgwaltz.parked", "[a]")
	denies(c, 1)
	b.want("select count(*) from pgwaltz.parked", "0")
}

// Who publishes nothing, or is no peer any more, is not waited for, also where the others have answered already.
func TestSilentPeersAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*Config){
		"silent":     func(c *Config) { c.Silent = func(peer string) bool { return peer == "c" } },
		"no peer":    func(c *Config) { c.Peers = []string{"a"} },
		"both there": func(*Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r := newBench(t, thinDDL), thin()
			b.a.cfg.Peers = []string{"a", "c"}
			b.apply(b.tx(nil, update(r, nil, thinRow("1", "A", 2, 2, digestOf("same")))))
			b.exec("update pgwaltz.parked set held = true")
			denies := func() {
				lower := update(r, nil, thinRow("1", "older", 1, 1, text("other")[0]))
				at := func(day int) wal.Micros { return wal.Micros(time.Date(2024, 1, day, 0, 0, 0, 0, time.UTC).UnixMicro()) }
				lower.Stamp, lower.Repair, lower.Answer, lower.Asked = wal.Stamp{Version: 1, UpdatedAt: at(1)}, true, true, wal.Stamp{Version: 2, UpdatedAt: at(2)}
				tx := b.tx(nil)
				tx.Applied, tx.Changes = true, []wal.Change{lower}
				b.apply(tx)
			}
			denies()
			b.want("select denied from pgwaltz.parked", "[a]")
			leave(&b.a.cfg)
			denies()
			want := "0"
			if name == "both there" {
				want = "1"
			}
			b.want("select count(*) from pgwaltz.parked", want)
		})
	}
}

// An origin is asked again for what waits for long, and not before.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	b.apply(b.tx(nil, update(r, nil, thinRow("1", "A", 2, 2, digestOf("same")))))
	b.slot()
	re := patientRetrier(b.a.cfg)
	defer re.a.Close()
	for range 3 {
		if err := re.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, q := range re.queues {
			q.due = time.Time{}
		}
	}
	b.wantTold("")
	for _, q := range re.queues {
		q.moved = q.moved.Add(-2 * retryMax)
	}
	for range 3 {
		for _, q := range re.queues {
			q.due = time.Time{}
		}
		if err := re.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.wantTold("a told  3: 1= against nothing")
}

// Who is asked says what it holds, of tables that it publishes and of nothing else.
func TestAnswers(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL+"; create table secret(id int primary key, v text, version bigint, updated_at timestamptz, big text); insert into secret values (1, 's')"), thin()
	b.a.cfg.Publishes = func(n wal.RelationName) bool { return n.Name == "acct" }
	b.slot()
	b.exec("insert into acct values (1,'B',3,'2024-01-01 00:00:00+00','" + strings.Repeat("x", 5000) + "')")
	b.apply(b.tx(nil, remove(r, thinRow("2", "0", 1, 1, text("gone")[0]))))
	before := len(b.told().repairs)
	ask := func(rel *wal.Relation, id, to string) wal.Notice {
		return wal.Notice{Relation: rel, To: to, Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Row: text(id, "\\N", "\\N", "\\N", "\\N")}}
	}
	secret := thin()
	secret.Name = "secret"
	missing := thin()
	missing.Columns[4].Name = "not_here"
	tx := b.tx(nil)
	tx.Applied = true
	tx.Notices = []wal.Notice{ask(r, "1", "b"), ask(r, "2", "b"), ask(r, "3", "b"), ask(secret, "1", "b"), ask(missing, "1", "b"), ask(r, "1", "c")}
	b.a.cfg.Barrier = nil
	b.apply(tx)
	got := b.told().repairs[before:]
	b.wantTold("a told  4: 3= against nothing", "a told delete_missing 1: tombstone of 2 against nothing", "repair delete 2=", "repair update 1=B")
	if len(got) != 2 || got[0].Op != wal.Update || string(got[0].New[1].Bytes) != "B" || len(got[0].New[4].Bytes) != 5000 || got[0].Stamp.Version != 3 || got[1].Op != wal.Delete || string(got[1].Old[0].Bytes) != "2" {
		t.Errorf("answered %s", said{repairs: got})
	}
	b.want("select count(*) from pgwaltz.conflict where reason = 'told'", "0")
}

// What is parked above the row that is shown is held as well: it will be shown.
func TestAnswersWithWhatIsParked(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL+"; alter table acct add check (v <> 'refused')"), thin()
	b.slot()
	b.exec("insert into acct values (1,'B',1,'2024-01-01 00:00:00+00','x'), (2,'B',1,'2024-01-01 00:00:00+00','x'), (4,'B',1,'2024-01-01 00:00:00+00','same')")
	b.apply(b.tx(nil, update(r, nil, thinRow("1", "refused", 2, 2, text("whole")[0])), update(r, nil, thinRow("2", "A", 2, 2, digestOf("same"))), insert(r, thinRow("3", "refused", 2, 2, text("whole")[0])), update(r, nil, thinRow("4", "refused", 2, 2, digestOf("same")))))
	b.want("select key, sqlstate from pgwaltz.parked order by key", `["1"]|23514;["2"]|P0002;["3"]|23514;["4"]|23514`)
	before := len(b.told().repairs)
	tx := b.tx(nil)
	tx.Applied = true
	for _, id := range []string{"1", "2", "3", "4"} {
		tx.Notices = append(tx.Notices, wal.Notice{Relation: r, To: "b", Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: wal.Stamp{Version: 7}, Row: text(id, "\\N", "\\N", "\\N", "\\N")}})
	}
	b.apply(tx)
	var got []string
	for _, c := range b.told().repairs[before:] {
		if !c.Answer || c.Asked.Version != 7 {
			t.Errorf("%s is no answer to what was asked", c.New[0].Bytes)
		}
		got = append(got, fmt.Sprintf("%s=%s %s", c.New[0].Bytes, c.New[1].Bytes, c.New[4].Bytes))
	}
	if s := strings.Join(got, "; "); s != "1=refused whole; 2=B x; 3=refused whole; 4=refused same" {
		t.Errorf("answered %s", s)
	}
	b.want("select string_agg(key, ' ' order by key) from pgwaltz.parked where held and row is not null", `["1"] ["3"] ["4"]`)
}

// A row that a change of its key has put in waits for nothing any more when its origin says that it
// does not hold that very row.
func TestAnswerForARowThatWasPutIn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL), thin()
	tx := b.tx(nil, insert(r, thinRow("1", "A", 2, 2, digestOf("same"))))
	b.apply(tx)
	b.want("select key from pgwaltz.parked", `["1"]`)
	answer := b.tx(nil)
	gone := remove(r, thinRow("1", "A", 1, 1, text("same")[0]))
	gone.Repair, gone.Answer, gone.Stamp = true, true, wal.Stamp{Version: 1}
	answer.Applied, answer.Changes = true, []wal.Change{gone}
	b.apply(answer)
	b.want("select key from pgwaltz.parked", `["1"]`) // it was asked for another one
	absent := wal.Notice{Relation: r, To: "b", Outcome: wal.Absent, Yours: wal.Entry{Known: true, Alive: true, Stamp: gone.Stamp, Row: text("1", "\\N", "\\N", "\\N", "\\N")}}
	says := func() {
		told := b.tx(nil)
		told.Applied, told.Notices = true, []wal.Notice{absent}
		b.apply(told)
	}
	says()
	b.want("select key from pgwaltz.parked", `["1"]`) // likewise
	absent.Yours.Stamp = tx.Changes[0].Stamp
	b.exec("begin; create temp table kept as select * from pgwaltz.parked; commit")
	says()
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select count(*) from pgwaltz.conflict where reason = 'told'", "0")
	b.exec("insert into pgwaltz.parked overriding system value select * from kept")
	answer = b.tx(nil)
	gone.Asked = tx.Changes[0].Stamp
	answer.Applied, answer.Changes = true, []wal.Change{gone}
	b.apply(answer)
	b.want("select count(*) from pgwaltz.parked", "0")
}

// The life that a row is in is known when own deletes are: nothing is answered before.
func TestAnswersBehindOwnChanges(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL+"; insert into acct values (1,'B',3,'2024-01-01 00:00:00+00','x')"), thin()
	b.slot()
	waited, overdue := 0, error(nil)
	b.a.cfg.Barrier = func(context.Context) error {
		waited++
		b.exec("update acct set v = 'C'")
		return overdue
	}
	tx := b.tx(nil)
	tx.Applied = true
	tx.Notices = []wal.Notice{{Relation: r, To: "b", Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Row: text("1", "\\N", "\\N", "\\N", "\\N")}}}
	b.apply(tx)
	b.wantTold("repair update 1=C")
	if waited != 1 {
		t.Errorf("waited %d times for own changes", waited)
	}
	if said := b.told().repairs; !said[0].Answer {
		t.Error("the answer is told as if nobody had asked")
	}
	// They do not become known: what is said then does not count as an answer.
	overdue = ErrOverdue
	again := *tx
	again.CommitLSN, again.EndLSN = again.CommitLSN+100, again.EndLSN+100
	b.apply(&again)
	if said := b.told().repairs; len(said) != 2 || said[1].Answer || waited != 2 {
		t.Errorf("waited %d times, said %v", waited, said)
	}
}

// What somebody holds is not answered, and stops nothing.
func TestAnswersDoNotWait(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, thinDDL+"; insert into acct values (1,'B',3,'2024-01-01 00:00:00+00','x')"), thin()
	b.slot()
	app, err := b.a.cfg.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	for _, sql := range []string{"begin", "lock table public.acct in access exclusive mode"} {
		if _, err := app.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	tx := b.tx(nil)
	tx.Applied = true
	tx.Notices = []wal.Notice{{Relation: r, To: "b", Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Row: text("1", "\\N", "\\N", "\\N", "\\N")}}}
	b.apply(tx)
	b.wantTold("")
	b.want("select transactions from pgwaltz.checkpoint", "0")
	if _, err := app.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	again := *tx
	again.CommitLSN, again.EndLSN = again.CommitLSN+100, again.EndLSN+100
	b.apply(&again)
	b.wantTold("repair update 1=B")
}

// Wide rows that need a decision are read a few at a time.
func TestWideRowsInChunks(t *testing.T) {
	t.Parallel()
	g, tt := &batch.Group{Runs: make([]batch.Run, 300)}, &target{}
	a := &Applier{}
	runs := make([]int, 300)
	for i := range runs {
		runs[i] = i
	}
	var sizes []int
	for _, wide := range []int{100, 100, 1 << 20, 100} {
		most := 0
		if err := a.inChunks(g, tt, runs, func(chunk []int) (int, error) {
			most = max(most, len(chunk))
			return len(chunk) * wide, nil
		}); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, most, tt.rowBytes)
	}
	if sizes[0] > 300 || sizes[2] != 300 || sizes[5] < 1<<20 || sizes[6] > 40 {
		t.Errorf("largest pieces and row sizes: %v", sizes)
	}
}
