package cutover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Each command asks both servers who they are: one database as both ends, another database than the cutover was begun with, and a standby are
// refused, and nothing is changed. Writes can be given back all the same.
func TestIdentity(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "identity")
	commands := [][]string{{"plan"}, w.pause(), {"wait"}, {"sequences"}, {"finish"}, {"roles"}, {"extensions"}, {"monitor"}, {"schema", "copy"}, {"rehearse", "prepare", "--role", "app"}, {"rehearse", "run", "--role", "app"}, {"rehearse", "remove"}}
	refused := func(says, when string, commands ...[]string) {
		t.Helper()
		for _, words := range commands {
			if code, text := w.run("", words...); code != 4 || !strings.Contains(text, says) {
				t.Errorf("%s: %s: code %d: %s", when, words[0], code, text)
			}
		}
	}
	real := peer(w.a, w.b)
	twin := map[string]any{"region": "b", "dsn": w.a.Cluster.DSN(w.a.Database)}
	before := w.everything()
	w.a.Sidecar.Set("peers", []any{twin})
	refused("same database", "one database", append(commands, []string{"resume-write"}, []string{"abort"})...)
	w.same(before, "one database")

	// The cutover is begun with one database of b, and goes on with another one.
	w.a.Sidecar.Set("peers", []any{real})
	w.ok(w.pause()...)
	w.sql(w.b, `create database elsewhere`)
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN("elsewhere")}})
	refused("and not "+w.id(w.b), "another database", commands[:5]...)
	refused("and not "+w.id(w.b), "another database", []string{"monitor"})
	w.stopped(w.a)
	w.a.Sidecar.Set("peers", []any{real})

	// b becomes a standby.
	_, err := w.b.Sidecar.Stop(t.Context(), time.Minute)
	w.must(err)
	want := w.id(w.b)
	w.must(w.b.Cluster.Stop(t.Context(), harness.StopFast, time.Minute))
	signal := filepath.Join(w.b.Cluster.DataDir, "standby.signal")
	w.must(os.WriteFile(signal, nil, 0o644))
	w.must(w.b.Cluster.Start(t.Context()))
	if got := w.id(w.b) + w.sql(w.b, `select pg_is_in_recovery()`); got != want+"t" {
		t.Fatalf("b is %s", got)
	}
	refused("is a standby", "standby", []string{"plan"}, []string{"wait"}, []string{"sequences"}, []string{"finish"}, []string{"monitor"}, []string{"schema", "copy"})
	w.stopped(w.a)
	w.ok("resume-write")
	if got := w.as(w.a, "app", `delete from item`); got != "" {
		t.Errorf("app cannot write: %s", got)
	}
	if code, text := w.run("", "abort"); code == 0 || !strings.Contains(text, "standby") {
		t.Errorf("abort: code %d: %s", code, text)
	}
	w.must(w.b.Cluster.Stop(t.Context(), harness.StopFast, time.Minute))
	w.must(os.Remove(signal))
	w.must(w.b.Cluster.Start(t.Context()))
	w.ok("abort")
	w.sql(w.b, `drop database elsewhere`)
	w.same(before, "in the end")
}
