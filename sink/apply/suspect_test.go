package apply

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

const endsSession = `; create function public.ends() returns trigger language plpgsql as $$ begin
  if new.v = 'end' then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$;
create trigger ends before insert or update on public.acct for each row execute function public.ends(); alter table public.acct enable always trigger ends`

// A change that ends the session each time is found by what was in hand, and set aside; the
// others go in. The retrier leaves it alone until the table's definition changes.
func TestChangeThatEndsTheSessionIsParked(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+endsSession), acct()
	tx := b.tx(nil, insert(r, row("1", "a", 1, 1)), insert(r, row("2", "end", 1, 1)), insert(r, row("3", "c", 1, 1)))
	lost := 0
	for b.tryApply(tx) != nil {
		if lost++; lost > 10 {
			t.Fatal("it ends every session for ever")
		}
		if _, err := b.a.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if lost < lostCarefully+lostInHand {
		t.Errorf("set aside after %d lost sessions", lost)
	}
	b.want("select string_agg(id::text, ',' order by id) from acct", "1,3")
	b.want("select key, sqlstate from pgwaltz.parked", `["2"]|PW003`)
	retrier := b.retrier()
	b.turns(retrier, 3)
	b.want("select attempts from pgwaltz.parked", "0")
	b.exec("drop trigger ends on acct")
	b.turns(retrier, 2)
	b.want("select string_agg(id::text, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "1,2,3|0")
}

// A parked change that ends the retrier's session is tried twice, and no more.
func TestRetrierLeavesAlone(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'end')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "end", 1, 1))))
	b.want("select sqlstate from pgwaltz.parked", "23514")
	b.exec("alter table acct drop constraint no" + endsSession)
	retrier, lost := b.retrier(), 0
	for range 8 {
		for _, q := range retrier.queues {
			q.due = q.moved
		}
		retrier.pause = 0
		if err := retrier.Turn(t.Context()); err != nil {
			lost++
			retrier.a.Close()
		}
	}
	if lost != lostRetrying {
		t.Errorf("%d sessions lost, want %d", lost, lostRetrying)
	}
	b.want("select sqlstate, attempts from pgwaltz.parked", "PW003|1")
}

// A table that was dropped and made anew does not get what waited for the old one, unless
// somebody asks for it.
func TestParkedOfADroppedTable(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 1, 1))))
	b.exec("drop table acct; " + acctDDL)
	retrier := b.retrier()
	b.turns(retrier, 3)
	b.want("select (select count(*) from acct), sqlstate from pgwaltz.parked", "0|PW004")
	b.exec("update pgwaltz.parked set wanted = true")
	b.turns(retrier, 1)
	b.want("select count(*), (select count(*) from pgwaltz.parked) from acct", "1|0")
}

// A column that both regions have dropped keeps nothing parked once the origin is seen without it.
func TestParkedGoesInWithoutADroppedColumn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct drop column v"), acct()
	now := *r
	now.Columns, now.PrimaryKey = append([]wal.Column{r.Columns[0]}, r.Columns[2:]...), []int{0}
	b.apply(b.tx(nil, insert(r, row("1", "gone", 1, 1)), insert(r, row("2", "gone", 1, 1))))
	b.want("select string_agg(key || sqlstate, ',' order by id) from pgwaltz.parked", `["1"]42703,["2"]42703`)
	retrier := b.retrier()
	b.turns(retrier, 2)
	b.want("select count(*) from acct", "0")
	b.apply(b.tx(nil, insert(&now, text("3", "1", "2024-01-01 00:00:00+00"))))
	b.turns(retrier, 3)
	b.want("select string_agg(id::text || version, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "11,21,31|0")
}

// A renamed column is no dropped one: what is parked goes in under the new name, and stays where
// the column may as well have been dropped and another one added.
func TestParkedFollowsARenamedColumn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct rename column v to w"), acct()
	now := *r
	now.Columns = slices.Clone(r.Columns)
	now.Columns[1].Name = "w"
	b.apply(b.tx(nil, insert(r, row("1", "mine", 1, 1))))
	b.want("select sqlstate from pgwaltz.parked", "42703")
	b.apply(b.tx(nil, insert(&now, row("2", "later", 1, 1))))
	b.turns(b.retrier(), 3)
	b.want("select string_agg(id || w, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "1mine,2later|0")

	b, r = newBench(t, acctDDL+"; alter table acct drop column v; alter table acct add column w text"), acct()
	now = *r
	now.Columns = append(append([]wal.Column{r.Columns[0]}, r.Columns[2:]...), r.Columns[1])
	now.Columns[len(now.Columns)-1].Name = "w"
	now.PrimaryKey = []int{0}
	b.apply(b.tx(nil, insert(r, row("1", "whose", 1, 1))))
	b.apply(b.tx(nil, insert(&now, text("2", "1", "2024-01-01 00:00:00+00", "other"))))
	b.turns(b.retrier(), 3)
	b.want("select string_agg(id || w, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "2other|1")
}

// Changes follow their table when it is renamed or moved.
func TestParkedFollowsItsTable(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 1, 1))))
	b.exec("create schema elsewhere; alter table acct rename to acct2; alter table acct2 set schema elsewhere")
	retrier := b.retrier()
	if tables, _, err := parked.Follow(t.Context(), b.conn, b.a.cfg.Region, retrier.a.cfg.Parked); err != nil || len(tables) != 1 || tables[0].Name != "acct2" {
		t.Fatalf("followed are %v, %v", tables, err)
	}
	b.exec(acctDDL)
	b.turns(retrier, 2)
	b.want("select schema_name, table_name from pgwaltz.parked", "elsewhere|acct2")
	moved := *r
	moved.Schema, moved.Name = "elsewhere", "acct2"
	b.apply(b.tx(nil, update(&moved, row("1", "bad", 1, 1), row("1", "better", 2, 2))))
	b.want("select v, (select count(*) from acct), (select count(*) from pgwaltz.parked) from elsewhere.acct2", "better|0|0")
}

// Where another table has taken the name, a waiting change stays with neither until it is known which of the two it belongs to.
func TestParkedWaitsWhereItsTableGaveItsNameAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		settle func(context.Context, parked.Querier, []int64, *parked.Index) error
		want   string // of both tables
	}{
		{"to the table", func(ctx context.Context, q parked.Querier, ids []int64, x *parked.Index) error {
			_, err := parked.FollowOnly(ctx, q, ids, x)
			return err
		}, "1|0|0"},
		{"to the name", func(ctx context.Context, q parked.Querier, ids []int64, _ *parked.Index) error {
			return parked.Stay(ctx, q, ids)
		}, "0|1|0"},
	} {
		b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
		b.apply(b.tx(nil, insert(r, row("1", "bad", 1, 1))))
		b.exec("alter table acct rename to acct2; alter table acct2 drop constraint no; " + acctDDL)
		retrier := b.retrier()
		if tables, _, err := parked.Follow(t.Context(), b.conn, b.a.cfg.Region, retrier.a.cfg.Parked); err != nil || len(tables) > 0 {
			t.Fatalf("followed are %v, %v", tables, err)
		}
		b.turns(retrier, 2)
		b.want("select table_name, sqlstate from pgwaltz.parked", "acct|PW004")
		list, err := parked.Displaced(t.Context(), b.conn, b.a.cfg.Region, 0, 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("displaced are %v, %v", list, err)
		}
		if own, err := parked.Displaced(t.Context(), b.conn, list[0].Origin, 0, 10); err != nil || len(own) > 0 {
			t.Fatalf("of the region itself displaced are %v, %v", own, err)
		}
		if more, err := parked.Displaced(t.Context(), b.conn, b.a.cfg.Region, list[0].ID, 10); err != nil || len(more) > 0 {
			t.Fatalf("behind the last one displaced are %v, %v", more, err)
		}
		if err := c.settle(t.Context(), b.conn, []int64{list[0].ID}, retrier.a.cfg.Parked); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		retrier.a.cfg.Parked.Want(true)
		b.turns(retrier, 2)
		b.want("select (select count(*) from acct2), (select count(*) from acct), (select count(*) from pgwaltz.parked)", c.want)
	}
}

// However long a queue has rested, a change of the table's definition makes it due at once, and
// writes of its neighbours make it due soon.
func TestDefinitionMakesQueuesDue(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad')"), acct()
	b.apply(b.tx(nil, insert(r, row("1", "bad", 1, 1))))
	retrier := b.retrier()
	turn := func() {
		t.Helper()
		retrier.pause, retrier.lookAgain = 0, 0
		if err := retrier.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	turn()
	rest := func(d time.Duration) {
		for _, q := range retrier.queues {
			q.due = time.Now().Add(d)
		}
	}
	rest(time.Hour)
	turn()
	b.want("select attempts < 3 from pgwaltz.parked", "true")
	b.exec("alter table acct drop constraint no")
	turn()
	b.want("select count(*), (select count(*) from pgwaltz.parked) from acct", "1|0")

	b.exec("alter table acct add constraint no check (v <> 'bad')  not valid")
	b.apply(b.tx(nil, update(r, row("1", "bad", 1, 1), row("1", "bad", 2, 2))))
	turn()
	turn()
	rest(time.Hour)
	b.exec("insert into acct values (7, 'x', 1, now()); select pg_stat_force_next_flush()")
	turn()
	for _, q := range retrier.queues {
		if time.Until(q.due) > time.Minute {
			t.Error("the queue rests on while its table is written")
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	b := newBench(t, "create type lab as enum ('a'); create domain pos as int; create table f(id int primary key, l lab, p pos); create table g(f int references f); create table h(id int)")
	name, other := wal.RelationName{Schema: "public", Name: "f"}, wal.RelationName{Schema: "public", Name: "none"}
	look := func() string {
		t.Helper()
		got, err := fingerprints(t.Context(), b.conn, []wal.RelationName{other, name})
		if err != nil {
			t.Fatal(err)
		}
		if got[other].definition != "" {
			t.Error("a table that is not here has a definition")
		}
		return got[name].definition
	}
	last := look()
	if last == "" || look() != last {
		t.Fatal("a table's definition is read the same twice")
	}
	for _, sql := range []string{
		"alter table f add column z int", "alter type lab add value 'b'", "alter domain pos add check (value > 0)", "create index on f(p)",
		"create function ft() returns trigger language plpgsql as 'begin return new; end'; create trigger ft before insert on f for each row execute function ft()",
		"create or replace function ft() returns trigger language plpgsql as 'begin return null; end'", "grant select on f to public", "alter table g drop constraint g_f_fkey",
	} {
		b.exec(sql)
		if now := look(); now == last {
			t.Errorf("not seen: %s", sql)
		} else {
			last = now
		}
	}
	b.exec("alter table h add column z int; insert into f values (1, 'a', 1); analyze f")
	if look() != last {
		t.Error("seen where nothing of the table has changed")
	}
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	var s Suspects
	cp, p := checkpoint.Checkpoint{EndLSN: 5}, place{1, 0, 2}
	if carefully, _ := s.care(cp, 0); carefully {
		t.Error("careful without a reason")
	}
	for range lostCarefully {
		s.end(cp, 0, false)
	}
	if carefully, strictly := s.care(cp, 0); !carefully || strictly {
		t.Error("not careful")
	}
	for n := range lostInHand {
		if s.convicted(p) {
			t.Errorf("convicted after %d", n)
		}
		s.take(p)
		s.end(cp, 0, true)
	}
	if !s.convicted(p) {
		t.Error("not convicted")
	}
	if carefully, _ := s.care(checkpoint.Checkpoint{EndLSN: 6}, 0); carefully {
		t.Error("careful about another checkpoint")
	}
	s.moved()
	if carefully, _ := s.care(cp, 0); carefully || s.convicted(p) {
		t.Error("it goes on, and is remembered")
	}
	if !strings.HasPrefix(stateEnded, "PW") {
		t.Error("a state of PostgreSQL's")
	}
}

// The column of a stamp had another name while changes were made: with its name back, it says what their
// rows say.
func TestParkedStampsAreReadByTheNamesOfNow(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	was := *r
	was.Columns = slices.Clone(r.Columns)
	was.Columns[2].Name = "ver"
	was.Identity = wal.IdentityFull
	b.exec("insert into acct values (3, 'old', 4, '2024-01-01')")
	b.apply(b.tx(nil, insert(&was, row("1", "mine", 5, 1))), b.tx(nil, wal.Change{Op: wal.Delete, Relation: &was, Old: row("3", "old", 4, 1), OldFull: true}))
	b.want("select string_agg(distinct sqlstate, ',') from pgwaltz.parked", "42703")
	b.apply(b.tx(nil, insert(r, row("2", "later", 1, 1))))
	b.turns(b.retrier(), 3)
	b.want("select string_agg(id || v || version, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "1mine5,2later1|0")
}

// The type of a key was altered in both regions, one after the other: what came by the old type goes
// in, where its values are written alike.
func TestParkedFollowsTheTypeOfItsKey(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, strings.Replace(acctDDL, "id int", "id text", 1)), acct()
	now := *r
	now.Columns = slices.Clone(r.Columns)
	now.Columns[0].OID = wal.OIDText
	b.exec("insert into acct values ('3', 'old', 1, '2024-01-01'), ('4', 'old', 1, '2024-01-01')")
	b.apply(b.tx(nil, insert(r, row("1", "mine", 1, 1)), update(r, row("3", "old", 1, 1), row("3", "new", 2, 2)), wal.Change{Op: wal.Delete, Relation: r, Old: row("4", "old", 1, 1), OldFull: true}))
	b.want("select string_agg(distinct sqlstate, ',') from pgwaltz.parked", "42P10")
	b.apply(b.tx(nil, insert(&now, row("2", "later", 1, 1))))
	b.turns(b.retrier(), 3)
	b.want("select string_agg(id || v, ',' order by id), (select count(*) from pgwaltz.parked) from acct", "1mine,2later,3new|0")
}

func TestPrintsAlike(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to uint32
		text     string
		want     bool
	}{
		{wal.OIDInt4, wal.OIDText, "5", true}, {wal.OIDText, wal.OIDInt4, "5", true}, {wal.OIDText, wal.OIDInt4, "05", false}, {wal.OIDInt4, wal.OIDNumeric, "-5", true},
		{wal.OIDNumeric, wal.OIDInt8, "1.0", false}, {wal.OIDBool, wal.OIDText, "t", false}, {wal.OIDUUID, wal.OIDText, "00000000-0000-0000-0000-000000000001", true},
	} {
		if got := printsAlike(tt.from, tt.to, tt.text); got != tt.want {
			t.Errorf("%s of type %d as %d: %v, want %v", tt.text, tt.from, tt.to, got, tt.want)
		}
	}
}

// Sessions that are lost in different parts of a giant transaction say nothing against any of them, until they are many.
func TestSuspectsOfParts(t *testing.T) {
	t.Parallel()
	var s Suspects
	cp := checkpoint.Checkpoint{EndLSN: 5}
	for n := range uint32(lostEverywhere - 1) {
		s.end(cp, n%5, false)
	}
	for part := range uint32(5) {
		if carefully, _ := s.care(cp, part); carefully {
			t.Errorf("careful with part %d", part)
		}
	}
	s.end(cp, 4, false) // the fourth time there
	s.end(cp, 4, false)
	if carefully, strictly := s.care(cp, 7); !carefully || strictly {
		t.Error("not careful everywhere")
	}
	s = Suspects{}
	for range lostCarefully {
		s.end(cp, 3, false)
	}
	a, _ := s.care(cp, 3)
	if b, _ := s.care(cp, 2); !a || b {
		t.Errorf("careful where sessions end: %t, elsewhere: %t", a, b)
	}
}

// A session that this process ends itself, for what it kept from being stamped, says nothing against a change.
func TestASessionEndedHereIsNoSuspicion(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+endsSession), acct()
	tx := b.tx(nil, insert(r, row("2", "end", 1, 1)))
	for range 2 * lostCarefully {
		b.idx.Ending(b.a.conn.PgConn().PID())
		if b.tryApply(tx) == nil {
			t.Fatal("the session did not end")
		}
		if _, err := b.a.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if careful, _ := b.a.cfg.Suspects.care(b.a.cp, 0); careful {
		t.Error("the changes are suspected")
	}
}
