package fallback

import "testing"

// What the stream held for b when the switch was made comes through the subscription. The way back must not apply it again: rows
// that were deleted meanwhile would live again.
func TestStreamForgetsWhatTheSubscriptionBrought(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "stale")
	w.start(w.a, w.b)
	w.arrives()
	w.copied()
	w.stop(w.b)
	w.sql(w.a, `insert into item (id, n, body) select g, 1, 'of the stream' from generate_series(1, 20) g`)
	w.sql(w.a, `delete from item where id = 20`)
	w.within("the stream to have it", func() bool {
		st, err := w.a.Sidecar.Status(w.Context())
		return err == nil && st.Outbound != nil && st.Outbound.PublishedLSN >= w.sql(w.a, `select pg_current_wal_lsn()`)
	})
	w.stop(w.a)
	w.to("native", w.a, w.b)
	w.arrives()
	w.sql(w.a, `delete from item where id between 1 and 9`)
	w.sql(w.a, `insert into item (id, n, body) values (20, 1, 'again')`)
	w.arrives()
	end := w.sql(w.a, `select pg_current_wal_lsn()`)
	w.within("the slot to be confirmed behind it", func() bool {
		return w.sql(w.a, `select confirmed_flush_lsn >= '`+end+`' from pg_replication_slots`) == "t"
	})
	w.equal("in mode native")
	w.to("stream", w.b, w.a)
	w.start(w.a, w.b)
	w.arrives()
	w.copied()
	w.arrives()
	w.equal("in the stream again")
	w.want(w.b, `select count(*) from pgwaltz.conflict where type like 'delete%' and verdict = 'apply'`, "0")
}
