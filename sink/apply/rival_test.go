package apply

import "testing"

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
