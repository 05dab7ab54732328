package apply

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// moods is a table with an enum whose label was renamed here, and not at the origin.
const moodDDL = `create type mood as enum ('glad', 'blue'); create table public.moods(id int primary key, m mood, version bigint, updated_at timestamptz);
insert into moods values (1, 'glad', 1, '2024-01-01 00:00:00+00'), (2, 'glad', 1, '2024-01-01 00:00:00+00')`

func moods() *wal.Relation {
	r := acct()
	r.Name = "moods"
	r.Columns[1] = wal.Column{Name: "m", OID: 20001, Type: "public.mood", Key: true}
	return r
}

// TestRenamedLabel: a row with a label that was renamed here is asked for, and goes in when its origin has followed. Until then
// nothing becomes of the answers.
func TestRenamedLabel(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, moodDDL), moods()
	b.slot()
	was := row("1", "glad", 1, 1)
	came := b.tx(nil, update(r, was, row("1", "sad", 2, 2)), insert(r, row("3", "sad", 1, 2)))
	b.apply(came)
	b.want("select key, sqlstate, kind, held from pgwaltz.parked order by key", `["1"]|22P02|0|false;["3"]|22P02|0|false`)
	re := patientRetrier(b.a.cfg)
	t.Cleanup(re.a.Close)
	turn := func() {
		t.Helper()
		for _, q := range re.queues {
			q.due, q.moved, q.asked, q.askRest = time.Time{}, q.moved.Add(-2*retryMax), time.Time{}, 0
		}
		re.pause, re.lookAgain = 0, 0
		if err := re.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	asked := func() (n int) {
		t.Helper()
		for _, w := range b.told().notices {
			if w.Outcome == wal.Wanted && w.To == "a" {
				n++
			}
		}
		return n
	}
	turn()
	if n := asked(); n != 2 {
		t.Fatalf("%d questions", n)
	}
	answer := func(label string) {
		t.Helper()
		tx := b.tx(nil)
		tx.Applied = true
		for i, id := range []string{"1", "3"} {
			ch := update(r, nil, row(id, label, 2-i, 2))
			ch.Repair, ch.Answer, ch.Stamp, ch.Asked = true, true, came.Changes[i].Stamp, came.Changes[i].Stamp
			tx.Changes = append(tx.Changes, ch)
		}
		b.apply(tx)
	}
	answer("sad")
	b.want("select key, sqlstate, kind, held from pgwaltz.parked order by key", `["1"]|22P02|0|false;["3"]|22P02|0|false`)
	turn() // the end of the queue
	turn()
	if n := asked(); n != 4 {
		t.Fatalf("%d questions", n)
	}
	answer("blue") // below the other label, bytewise
	b.want("select id, m::text, version from moods order by id", "1|blue|2;2|glad|1;3|blue|1")
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select type, verdict from pgwaltz.conflict", "")
}

// TestRenamedLabelThatIsNotHeld: the origin holds something lower by now, and what waited for it has no more to say.
func TestRenamedLabelThatIsNotHeld(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, moodDDL), moods()
	came := b.tx(nil, update(r, row("1", "glad", 1, 1), row("1", "sad", 2, 2)))
	b.apply(came)
	b.want("select count(*) from pgwaltz.parked", "1")
	tx := b.tx(nil)
	tx.Applied = true
	ch := update(r, nil, row("1", "glad", 1, 1))
	ch.Repair, ch.Stamp = true, wal.Stamp{Version: 1, UpdatedAt: came.Changes[0].Stamp.UpdatedAt - wal.Micros(24*time.Hour/time.Microsecond)}
	tx.Changes = []wal.Change{ch}
	b.apply(tx)
	b.want("select count(*) from pgwaltz.parked", "1") // nobody asked
	tx = b.tx(nil)
	ch.Answer, ch.Asked = true, came.Changes[0].Stamp
	tx.Applied, tx.Changes = true, []wal.Change{ch}
	b.apply(tx)
	b.want("select count(*) from pgwaltz.parked", "0")
	b.want("select m::text, version from moods where id = 1", "glad|1")
}

// TestUnreadIsTheSameWrite: of two writes of one stamp the contents decide, unless one of them is the other one with values of its time.
func TestUnreadIsTheSameWrite(t *testing.T) {
	t.Parallel()
	r := moods()
	w := conflict.Waiting{Relation: r, Op: wal.Update, Stamp: wal.Stamp{Version: 2}, Image: row("1", "sad", 2, 2)}
	now := w
	now.Image = row("1", "blue", 2, 2)
	for _, unread := range []bool{false, true} {
		if w.Unread = unread; (conflict.Policy{}).Releases(now, &w, false) != unread || (conflict.Policy{}).Gone(&now, &w) == unread {
			t.Errorf("unread %t", unread)
		}
	}
}
