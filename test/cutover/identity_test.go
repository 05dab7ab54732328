package cutover

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// third runs a statement in a database of the server of b that has what a sidecar of some region would have noted of a, behind all that a has written.
func (w *walk) third(text string) {
	w.Helper()
	out, err := w.b.Cluster.PSQL(w.Context(), "third", `create schema if not exists pgwaltz; `+strings.Join([]string{node.Schema, node.HomeSchema, pgstore.Schema, parked.Schema, tablecopy.Schema}, "; ")+`;
insert into pgwaltz.home (system_id, database) values (7, 8) on conflict do nothing;
insert into pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, seen_lsn, chain, stream_seq)
  values ('a', `+w.sql(w.a, `select system_identifier from pg_control_system()`)+`, 1, 's', 1, 1, 'FFFF/0', 'FFFF/0', decode(repeat('00', 32), 'hex'), 1) on conflict do nothing; `+text)
	if err != nil {
		w.Fatal(out, err)
	}
}

// mode runs a mode command with the configuration of a region.
func (w *walk) mode(r *harness.Region, words ...string) (int, string) {
	w.Helper()
	res, err := r.Sidecar.CLI(w.Context(), "mode", words...)
	w.must(err)
	return res.Code, res.Stdout + res.Stderr
}

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

	// peers[].dsn leads to a third region, which has all of a's rows too, and to a copy of b's database.
	w.sql(w.b, `create database third`)
	w.third(`insert into pgwaltz.node (region, cluster, token) values ('c', '` + w.pair.Name + `', gen_random_uuid())`)
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN("third")}})
	pause := []string{"pause-write", "--source", w.id(w.a), "--destination", strings.TrimSuffix(w.id(w.b), w.b.Database) + "third"}
	refused("which is region c", "a third region", append(slices.Clone(commands), pause)...)
	if code, text := w.run("", "abort"); code != 4 || !strings.Contains(text, "which is region c") {
		t.Errorf("abort: code %d: %s", code, text)
	}
	if code, text := w.mode(w.a, "compare"); code != 4 || !strings.Contains(text, "which is region c") {
		t.Errorf("mode compare: code %d: %s", code, text)
	}
	w.third(`update pgwaltz.node set region = 'b'`)
	refused("which is a copy", "a copy of b", append(slices.Clone(commands[:5]), pause)...)
	w.same(before, "a third region")

	// The cutover is begun with one database of b, and goes on with another one.
	w.a.Sidecar.Set("peers", []any{real})
	w.ok(w.pause()...)
	w.third(`delete from pgwaltz.home`)
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN("third")}})
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
	for _, words := range [][]string{{"show"}, {"switch", "native", "--dry-run"}, {"pause"}, {"compare"}} {
		if code, text := w.mode(w.b, words...); code != 4 || !strings.Contains(text, "is a standby") {
			t.Errorf("mode %s at a standby: code %d: %s", words[0], code, text)
		}
	}
	if code, text := w.mode(w.a, "compare"); code != 4 || !strings.Contains(text, "is a standby") {
		t.Errorf("mode compare with a standby: code %d: %s", code, text)
	}
	w.stopped(w.a)
	w.ok("resume-write")
	if got := w.as(w.a, "app", `delete from item`); got != "" {
		t.Errorf("app cannot write: %s", got)
	}
	if code, text := w.run("", "abort"); code != 4 || !strings.Contains(text, "standby") {
		t.Errorf("abort: code %d: %s", code, text)
	}
	w.must(w.b.Cluster.Stop(t.Context(), harness.StopFast, time.Minute))
	w.must(os.Remove(signal))
	w.must(w.b.Cluster.Start(t.Context()))
	w.ok("abort")
	w.sql(w.b, `drop database third`)
	w.same(before, "in the end")
}
