package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Changes of two origins that meet on a key which cannot be shown here: the one that loses is
// in the log, whichever comes first, and also when the winner goes in.
func TestParkedRivalsAreRecorded(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL+"; alter table acct add constraint no check (v <> 'bad' and v <> 'worse')"), acct()
	from := func(origin string) {
		b.exec("update pgwaltz.checkpoint set origin = '" + origin + "'")
		b.a.cfg.Origin, b.a.cp.Origin = origin, origin
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		b.apply(b.tx(nil, insert(r, row(id, "bad", 5, 5))))
	}
	from("c")
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
