package cutover

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// away moves the application from a to b under load, with the configuration of b.
func (w *walk) away() {
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
	w.ok("finish", "--from", "a")
	w.stopped(w.a)
	l.stop()
	if got := w.as(w.b, "app", `insert into other.thing (body) values ('here')`); got != "" {
		w.Errorf("app cannot write at b: %s", got)
	}
}

// A native subscription is underneath. What is not applied is not taken for arrived.
func TestCutoverNative(t *testing.T) {
	w := newWalkOn(t, nil, "cutnative", func(w *walk) {
		w.a.Sidecar.Set("direction", "publish")
		w.b.Sidecar.Set("direction", "apply")
		for _, r := range w.pair.Regions() {
			r.Sidecar.Set("mode", "native")
			r.Sidecar.Set("postgres.slot", nil)
		}
	})
	w.at = w.b
	w.within("plan to have nothing in the way", func() bool {
		code, text := w.run("", "plan", "--from", "a")
		return code == 0 && strings.Contains(text, "no going back")
	})
	// A row is locked at b: the worker waits, and so has wait to.
	w.sql(w.a, `insert into item (id, n) values (-7, 1)`)
	w.within("the row to be at b", func() bool { return w.sql(w.b, `select count(*) from item where id = -7`) == "1" })
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
	w.ok("abort", "--from", "a")
	w.away()
}

// pglogical is underneath, both ways.
func TestCutoverPglogical(t *testing.T) {
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
