package cutover

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// away moves the application from a to b under load, with the configuration of b.
func (w *walk) away(finish ...string) {
	w.Helper()
	w.at = w.b
	l := w.load(w.a, 2)
	defer l.stop()
	w.within("the load to begin", func() bool { return l.n() > 50 })
	w.within("plan to have nothing in the way", func() bool {
		code, _ := w.run("", "plan", "--from", "a")
		return code == 0
	})
	w.ok(append(w.pause(), "--from", "a")...)
	w.stopped(w.a)
	w.ok("wait", "--from", "a", "--timeout", "2m", "--probe", "public.probe")
	w.equal("behind wait")
	if got := w.sql(w.a, `select applied > '0/0' from pgwaltz.cutover`); got != "t" {
		w.Errorf("how far the destination's own notes are is not known: %q", got)
	}
	w.ok("sequences", "--from", "a")
	for done := len(finish) == 0; !done; { // it goes on where it was killed, behind each of its statements
		code, text := w.run("cutover.turned:kill@1", append([]string{"finish", "--from", "a"}, finish...)...)
		if done = code == 0; code == 4 {
			w.Fatalf("finish: %s", text)
		}
	}
	w.ok(append([]string{"finish", "--from", "a"}, finish...)...)
	w.stopped(w.a)
	l.stop()
	if got := w.as(w.b, "app", `insert into other.thing (body) values ('here')`); got != "" {
		w.Errorf("app cannot write at b: %s", got)
	}
}

// restart stops b, and starts it again between what f does with its files.
func (w *walk) restart(f func() error) {
	w.Helper()
	w.must(w.b.Cluster.Stop(w.Context(), harness.StopFast, time.Minute))
	w.must(f())
	w.must(w.b.Cluster.Start(w.Context()))
}

// A native subscription is underneath, from 16 on one in each direction. What is not applied is not taken for arrived, and a destination that has gone back behind that is
// found: the server itself does not send again what its slot has behind it.
func TestCutoverNative(t *testing.T) {
	t.Parallel()
	both := false
	w := newWalkOn(t, nil, "cutnative", func(w *walk) {
		both = w.sql(w.a, `select current_setting('server_version_num')::int >= 160000`) == "t"
		if !both {
			w.a.Sidecar.Set("direction", "publish")
			w.b.Sidecar.Set("direction", "apply")
		}
		for _, r := range w.pair.Regions() {
			r.Sidecar.Set("mode", "native")
			r.Sidecar.Set("postgres.slot", nil)
		}
	})
	w.at = w.b
	if both { // the way back would stop at the first table of an owner who is held
		w.within("plan to name the subscription", func() bool {
			code, text := w.run("", "plan", "--from", "a")
			return code == 4 && strings.Contains(text, "set (run_as_owner = true)")
		})
		w.sql(w.a, `alter subscription `+w.sql(w.a, `select quote_ident(subname) from pg_subscription`)+` set (run_as_owner = true)`)
	}
	w.within("plan to have nothing in the way", func() bool {
		code, text := w.run("", "plan", "--from", "a")
		return code == 0 && strings.Contains(text, "no going back") != both
	})
	// A row is locked at b: the worker waits, and so has wait to.
	w.sql(w.a, `insert into item (id, n) values (-7, 1)`)
	w.within("the row to be at b", func() bool { return w.sql(w.b, `select count(*) from item where id = -7`) == "1" })
	w.within("the subscription to have copied its tables", func() bool { // a server that is stopped meanwhile begins with one again, and takes its time
		return w.sql(w.b, `select count(*) from pg_subscription_rel where srsubstate <> 'r'`) == "0"
	})
	if !both {
		w.restart(func() error { return w.b.Cluster.Copy("early") })
	}
	s, err := w.b.Cluster.OpenSession(w.b.Database)
	w.must(err)
	defer s.Close()
	_, err = s.Run(t.Context(), `begin; select n from item where id = -7 for update`)
	w.must(err)
	w.sql(w.a, `update item set n = 2 where id = -7`)
	w.ok(append(w.pause(), "--from", "a")...)
	if code, text := w.run("", "wait", "--from", "a", "--timeout", "2s"); code == 0 {
		t.Errorf("wait: %s", text)
	}
	_, err = s.Run(t.Context(), `commit`)
	w.must(err)
	w.ok("wait", "--from", "a", "--timeout", "2m")
	w.equal("behind wait")
	if !both {
		w.goneBack()
	}
	w.ok("abort", "--from", "a")
	if !both {
		w.away("--reverse")
		w.reversed()
		return
	}
	w.away()
	if both {
		if got := w.as(w.b, "app", `insert into item (id, n) values (-8, 1)`); got != "" {
			t.Errorf("app cannot write at b: %s", got)
		}
		w.within("a row of b to come to a, whose owner is held", func() bool { return w.sql(w.a, `select count(*) from item where id = -8`) == "1" })
		w.stopped(w.a)
	}
}

// want compares the result of a query.
func (w *walk) want(r *harness.Region, query, is string) {
	w.Helper()
	if got := w.sql(r, query); got != is {
		w.Errorf("%s: %s is %s, want %s", r.Side, query, got, is)
	}
}

// reversed: what the application writes at b comes to a, and the application goes back over that.
func (w *walk) reversed() {
	w.Helper()
	w.want(w.b, `select count(*) from pg_subscription`, "0")
	w.want(w.a, `select count(*) from pg_replication_slots where database = current_database()`, "0")
	if got := w.as(w.b, "app", `insert into item (id, n) values (-8, 1)`); got != "" {
		w.Errorf("app cannot write at b: %s", got)
	}
	w.within("a row of b to come to a", func() bool { return w.sql(w.a, `select count(*) from item where id = -8`) == "1" })
	w.stopped(w.a)
	for _, r := range w.pair.Regions() {
		_, err := r.Sidecar.Stop(w.Context(), time.Minute)
		w.must(err)
	}
	w.a.Sidecar.Set("direction", "apply")
	w.b.Sidecar.Set("direction", "publish")
	w.must(w.a.Sidecar.Start())
	w.must(w.b.Sidecar.Start())
	w.within("both regions to be in step, the other way round", func() bool {
		for _, r := range w.pair.Regions() {
			if st, err := r.Sidecar.Status(w.Context()); err != nil || st.State != status.Replicating {
				return false
			}
		}
		return true
	})
	w.within("plan of the way back to have nothing in the way", func() bool {
		code, _ := w.run("", "plan", "--to", "a")
		return code == 0
	})
	w.ok("pause-write", "--source", w.id(w.b), "--destination", w.id(w.a), "--to", "a")
	w.ok("wait", "--to", "a", "--timeout", "2m")
	w.equal("behind the way back")
	w.ok("sequences", "--to", "a")
	w.ok("finish", "--to", "a", "--drop")
	if got := w.as(w.a, "app", `insert into item (id, n) values (-9, 1)`); got != "" {
		w.Errorf("app cannot write at a: %s", got)
	}
	w.want(w.a, `select count(*) from pg_subscription`, "0")
	w.want(w.b, `select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where database = current_database())`, "0")
}

// goneBack puts b back to what it was before the pause: neither finish nor wait takes that for all. In the end it is as it was.
func (w *walk) goneBack() {
	w.Helper()
	w.ok("sequences", "--from", "a")
	w.restart(func() error { return errors.Join(w.b.Cluster.Copy("late"), w.b.Cluster.Restore("early")) })
	for _, words := range [][]string{{"finish", "--from", "a"}, {"wait", "--from", "a", "--timeout", "2m"}, {"finish", "--from", "a"}} {
		if code, text := w.run("", words...); code == 0 || !strings.Contains(text, "gone back") && !strings.Contains(text, "not known whether all writes") {
			w.Errorf("%s: code %d: %s", words[0], code, text)
		}
	}
	if got := w.sql(w.b, `select n from item where id = -7`); got != "1" {
		w.Errorf("the row came again: %s", got)
	}
	w.restart(func() error { return w.b.Cluster.Restore("late") })
	w.ok("wait", "--from", "a", "--timeout", "2m")
	w.equal("behind wait")
}

// pglogical is underneath, both ways.
func TestCutoverPglogical(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, withPglogical(t), "cutpglogical", func(w *walk) {
		for _, r := range w.pair.Regions() {
			r.Sidecar.Set("mode", "pglogical")
		}
	})
	w.away()
}

// withPglogical are the settings of servers that load the extension.
func withPglogical(t *testing.T) map[string]string {
	t.Helper()
	bin, err := harness.FindBinaries()
	pgtest.Found(t, err)
	return pgtest.Pglogical(t, bin.Dir)
}
