package fallback

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// withPglogical are the settings of servers that load the extension.
func withPglogical(t *testing.T) map[string]string {
	t.Helper()
	bin, err := harness.FindBinaries()
	pgtest.Found(t, err)
	return pgtest.Pglogical(t, bin.Dir)
}

// pglogicalPromises are the lines of the table in docs/fallback.md, as a test of mode pglogical. Both regions write.
var pglogicalPromises = []promise{
	{"order", inOrder},
	{"two regions that both write", func(w *walk) {
		for i := range 50 {
			w.sql(w.a, fmt.Sprintf(`insert into item (id, n, body) values (%d, 1, 'a')`, 2000+i))
			w.sql(w.b, fmt.Sprintf(`insert into item (id, n, body) values (%d, 1, 'b')`, 3000+i))
		}
		for _, r := range w.pair.Regions() {
			w.within(r.Side+" to have what both wrote", func() bool { return w.sql(r, `select count(*) from item where id >= 2000`) == "100" })
		}
		w.want(w.a, `select count(*) from pg_replication_slots where plugin = 'pglogical_output'`, "1")
	}},
	{"conflicts", func(w *walk) {
		w.apart(func() {
			w.sql(w.a, `update item set body = 'older', version = 99 where id = 2000`)
			w.sql(w.b, `update item set body = 'newer', version = 2 where id = 2000`)
		})
		for _, r := range w.pair.Regions() {
			w.within(r.Side+" to have the newer commit", func() bool { return w.sql(r, `select body || version from item where id = 2000`) == "newer2" })
		}
	}},
	{"deletes", func(w *walk) {
		w.apart(func() {
			w.sql(w.b, `delete from item where id = 2001`)
			w.sql(w.a, `update item set body = 'later than the delete' where id = 2001`)
		})
		w.arrives()
		w.want(w.b, `select count(*) from item where id = 2001`, "0")
		w.want(w.b, `select count(*) from pgwaltz.tombstone`, "0")
	}},
	{"TRUNCATE", func(w *walk) {
		w.sql(w.a, `truncate first`)
		w.until(`select count(*) from first`, "0")
	}},
	{"audit", func(w *walk) {
		// a commits first, so b's is the newer one: it wins in both regions.
		for _, r := range w.pair.Regions() {
			verdict := map[string]string{"a": "apply b", "b": "keep b"}[r.Name]
			w.within(r.Side+" to have the conflict of row 2000", func() bool {
				return w.sql(r, `select verdict || ' ' || winner from pgwaltz.conflict where table_name = 'item' and key = '{"id": 2000}' and type = 'update_origin_differs'`) == verdict
			})
			w.want(r, `select array_agg(body order by body)::text from (select unnest(array[local_row ->> 'body', remote_row ->> 'body']) body from pgwaltz.conflict where key = '{"id": 2000}') x`, "{newer,older}")
		}
		w.within("the update behind the delete", func() bool {
			return w.sql(w.b, `select count(*) from pgwaltz.conflict where key = '{"id": 2001}' and type = 'update_missing' and winner = 'b' and origin = 'a'`) == "1"
		})
		w.want(w.b, `select count(*) = count(distinct event_id) and bool_and(commit_time is not null and commit_lsn is not null) from pgwaltz.conflict`, "t")
		n, ok, err := w.b.Sidecar.Metric(w.Context(), `pgwaltz_conflicts_total{type="update_missing"}`)
		if err != nil || !ok || n < 1 {
			w.Errorf("%v conflicts are counted (%t, %v)", n, ok, err)
		}
		w.state(w.b, status.Replicating, "") // the subscriptions were disabled a moment ago
		w.says(w.b, 0, "conflicts", "update_missing")
		// Another start reads the log again, and writes nothing twice. What cannot be read is said.
		before := w.sql(w.b, `select count(*) from pgwaltz.conflict`)
		w.stop(w.b)
		w.b.Sidecar.Set("fallback.server_log", "/nonexistent/server.log")
		w.start(w.b)
		w.state(w.b, status.Replicating, "")
		w.says(w.b, 0, "status", "conflicts are in the server's log only: the server's log cannot be read: /nonexistent/server.log")
		w.stop(w.b)
		w.b.Sidecar.Set("fallback.server_log", nil)
		w.start(w.b)
		w.state(w.b, status.Replicating, "")
		w.want(w.b, `select count(*) from pgwaltz.conflict`, before)
	}},
	{"network", func(w *walk) {
		w.want(w.a, `select count(*) > 0 and bool_and(client_addr = '127.0.0.1') from pg_stat_replication`, "t")
	}},
	{"unique clashes", func(w *walk) {
		w.apart(func() {
			w.sql(w.b, `insert into named values (1, 'one'), (2, 'two')`)
			w.sql(w.a, `insert into named values (2, 'one')`)
		})
		w.state(w.b, status.Down, "started again for ever")
		w.sql(w.b, `set session_replication_role = replica; delete from named where id = 2`)
		w.kick()
		w.state(w.b, status.Replicating, "")
	}},
	{"DDL", func(w *walk) {
		w.sql(w.a, `alter table second add more text; insert into second values (1001, 'more')`)
		w.state(w.b, status.Down, "started again for ever")
		w.sql(w.b, `alter table second add more text`)
		w.kick()
		w.until(`select more from second where id = 1001`, "more")
		w.state(w.b, status.Replicating, "")
	}},
}

// kick starts b's worker at once: by itself pglogical may take three minutes.
func (w *walk) kick() {
	w.Helper()
	for _, verb := range []string{"disable", "enable"} {
		w.sql(w.b, `select pglogical.alter_subscription_`+verb+`(sub_name, true) from pglogical.subscription`)
	}
}

// apart does something while neither region applies.
func (w *walk) apart(do func()) {
	w.Helper()
	all := func(verb string) {
		for _, r := range w.pair.Regions() {
			w.sql(r, `select pglogical.`+verb+`(sub_name, true) from pglogical.subscription`)
		}
	}
	all("alter_subscription_disable")
	for _, r := range w.pair.Regions() {
		w.within("the other's worker to end", func() bool {
			return w.sql(r, `select count(*) from pg_replication_slots where plugin = 'pglogical_output' and active`) == "0"
		})
	}
	do()
	all("alter_subscription_enable")
}

// What docs/fallback.md promises of mode pglogical, by the program itself, with two regions that write.
func TestPglogicalPromises(t *testing.T) {
	t.Parallel()
	settings := withPglogical(t)
	maps.Copy(settings, map[string]string{"logging_collector": "on", "log_filename": "'server.log'", "log_destination": "'stderr'"})
	w := newWalkOn(t, settings, "plpromises", promisedTables...)
	w.a.Sidecar.Set("fallback.server_log", filepath.Join(w.sql(w.a, `show data_directory`), "log", "server.log")) // b asks its server
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN(w.b.Database)}})
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("direction", "both")
		r.Sidecar.Set("mode", "pglogical")
		w.must(r.Sidecar.Setup(w.Context()))
	}
	if code, text := w.mode(w.b, "pglogical"); code != 4 || !strings.Contains(text, "at region a: pgwaltz mode switch --prepare pglogical") {
		t.Errorf("before the other one is prepared: code %d: %s", code, text)
	}
	w.want(w.b, `select count(*) from pg_extension where extname = 'pglogical'`, "0")
	w.start(w.a, w.b)
	w.state(w.b, status.Replicating, "")
	w.state(w.a, status.Replicating, "")
	w.program("pglogical", "pgwaltz_plpromises_a of pglogical, enabled")
	w.keep(pglogicalPromises)
	w.stop(w.a, w.b)
	for _, r := range w.pair.Regions() { // it may be run again
		if code, text := w.mode(r, "pglogical"); code != 0 || !strings.Contains(text, ": 0 statements run") {
			t.Errorf("again: code %d: %s", code, text)
		}
	}
	w.to("stream", w.a, w.b, w.a)
	w.want(w.a, `select count(*) from pg_replication_slots where plugin = 'pglogical_output'`, "0")
	w.want(w.a, `select relreplident from pg_class where relname = 'item'`, "f")
}

// The four names of a bootstrap script make the same, whatever the configuration says.
func TestPglogicalNames(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, withPglogical(t), "plnames", promisedTables...)
	node := func(r *harness.Region) string { return r.Cluster.DSN(r.Database) + " application_name=x" }
	for range 2 {
		for _, r := range w.pair.Regions() {
			if code, text := w.mode(r, "--prepare", "--node-name", "node-"+r.Name, "--node-dsn", node(r), "pglogical"); code != 0 {
				t.Fatalf("code %d: %s", code, text)
			}
		}
		code, text := w.mode(w.b, "--compare", "1m", "--node-name", "node-b", "--subscription-name", "from_a", "--provider-dsn", node(w.a), "pglogical")
		if code != 0 || !strings.Contains(text, "Both sides are equal.") {
			t.Fatalf("code %d: %s", code, text)
		}
	}
	w.want(w.b, `select sub_name || ' ' || node_name || ' ' || sub_replication_sets::text || coalesce(sub_forward_origins::text, '') from pglogical.subscription join pglogical.node on node_id = sub_target`, "from_a node-b {rep_all}")
	w.sql(w.a, `insert into item (id, n) values (1, 1)`)
	w.until(`select count(*) from item`, "1")
	for _, args := range [][]string{{"--node-name", "x", "native"}, {"--prepare", "stream"}} {
		if code, text := w.mode(w.b, args...); code != 2 {
			t.Errorf("%v: code %d: %s", args, code, text)
		}
	}
	if code, text := w.mode(w.b, "--node-name", "another", "pglogical"); code != 4 || !strings.Contains(text, `is node "node-b" already`) {
		t.Errorf("code %d: %s", code, text)
	}
	w.to("stream", w.b, w.a)
}

// From the stream to pglogical and back while a writes, with a kill behind each statement.
func TestPglogicalHandOver(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, withPglogical(t), "plhandover", `create table thing (id int primary key, code text not null, version bigint not null default 1, updated_at timestamptz not null default now())`)
	w.start(w.a, w.b)
	stop := w.load()
	w.arrives()
	w.copied()
	// A row of a is set aside at b, and deleted at a while the extension is at work: the way back must not put it in.
	w.sql(w.b, `create unique index on thing (code); insert into thing (id, code) values (1, 'x')`)
	w.sql(w.a, `insert into thing (id, code) values (2, 'x')`)
	w.until(`select count(*) from pgwaltz.parked`, "1")
	for _, r := range w.pair.Regions() { // beside the sidecars
		if code, text := w.mode(r, "--prepare", "pglogical"); code != 0 {
			t.Fatalf("prepare %s: code %d: %s", r.Side, code, text)
		}
	}
	w.arrives()
	w.stop(w.a, w.b)
	w.killed(w.a, "pglogical")
	w.killed(w.b, "pglogical")
	w.arrives()
	w.sql(w.b, `delete from thing where id = 1`)
	w.sql(w.a, `delete from thing where id = 2`)
	w.equalUnder(&stop, "in mode pglogical")
	w.want(w.b, `select count(*) from pgwaltz.parked`, "1")
	w.start(w.a, w.b)
	w.state(w.b, status.Replicating, "")
	w.sql(w.a, `create table bulk as select g, repeat(md5(g::text), 60) from generate_series(1, 14000) g`)
	w.within("the stream's slot to follow the subscription", func() bool {
		return w.sql(w.a, `select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) < 18e6 from pg_replication_slots where plugin = 'pgoutput'`) == "t"
	})
	w.stop(w.a, w.b)
	for _, r := range w.pair.Regions() {
		w.says(r, 4, "uninstall", "is in mode pglogical")
	}

	stop = w.load()
	w.killed(w.b, "stream")
	w.killed(w.a, "stream")
	w.start(w.a, w.b)
	w.arrives()
	w.equalUnder(&stop, "in the stream again")
	w.want(w.a, `select count(*) from pg_replication_slots`, "1")
	w.want(w.b, `select (select count(*) from pgwaltz.parked) || ' ' || (select count(*) from pgwaltz.conflict where verdict = 'discard') || ' ' || (select count(*) from thing)`, "0 1 0")
}

// What the stream has applied does not reach to where the set was made: the hand-over is refused, and nothing is made.
func TestPglogicalRefusals(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, withPglogical(t), "plrefuse")
	w.start(w.a, w.b)
	w.arrives()
	w.copied()
	w.stop(w.a, w.b)
	w.sql(w.a, `insert into item (id, n) values (77, 1)`)
	if code, text := w.mode(w.a, "--prepare", "pglogical"); code != 0 {
		t.Fatalf("prepare: code %d: %s", code, text)
	}
	if code, text := w.mode(w.b, "pglogical"); code != 4 || !strings.Contains(text, "pglogical can read what a commits behind") {
		t.Errorf("not prepared: code %d: %s", code, text)
	}
	w.want(w.b, `select count(*) from pg_extension where extname = 'pglogical'`, "0")
	w.b.Sidecar.Set("direction", "both")
	w.must(w.b.Sidecar.Setup(w.Context()))
	if code, text := w.mode(w.b, "pglogical"); code != 4 || !strings.Contains(text, "stop all writes") {
		t.Errorf("both write: code %d: %s", code, text)
	}
}
