package fallback

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// promise is a line of the table in docs/fallback.md.
type promise struct {
	line string
	show func(*walk)
}

// promisedTables are made besides item.
var promisedTables = []string{`create table first (id int primary key)`, `create table second (id int primary key)`, `create table named (id int primary key, name text unique)`}

// inOrder: transactions of a come to b as they were committed.
func inOrder(w *walk) {
	w.sql(w.a, `do $$ begin for i in 1..300 loop insert into first values (i); commit; insert into second values (i); commit; end loop; end $$`)
	w.within("all of it to be at b, one behind the other", func() bool {
		f, s, _ := strings.Cut(w.sql(w.b, `select (select count(*) from first) || ' ' || (select count(*) from second)`), " ")
		first, _ := strconv.Atoi(f)
		second, _ := strconv.Atoi(s)
		if second > first || second < first-1 {
			w.Fatalf("%d rows of the first table, and %d of the second, which is written behind it", first, second)
		}
		return second == 300
	})
}

// nativePromises are shown in mode native. They share a pair, in this order.
var nativePromises = []promise{
	{"order", inOrder},
	{"conflicts", func(w *walk) {
		w.sql(w.a, `insert into item (id, n, body) values (1000, 1, 'a')`)
		w.until(`select body from item where id = 1000`, "a")
		w.sql(w.b, `update item set body = 'b', version = 99, updated_at = 'infinity' where id = 1000`)
		w.sql(w.a, `update item set body = 'older', version = 2, updated_at = 'epoch' where id = 1000`)
		w.until(`select body || version from item where id = 1000`, "older2")
	}},
	{"deletes", func(w *walk) {
		w.sql(w.a, `insert into item (id, n, body) values (1001, 1, 'a')`)
		w.until(`select body from item where id = 1001`, "a")
		w.sql(w.b, `delete from item where id = 1001`)
		w.sql(w.a, `update item set body = 'of a row that is gone' where id = 1001`)
		w.arrives()
		w.want(w.b, `select count(*) from item where id = 1001`, "0")
		w.sql(w.a, `delete from item where id = 1001`)
		w.want(w.b, `select count(*) from pgwaltz.tombstone`, "0")
		w.errorless()
	}},
	{"TRUNCATE", func(w *walk) {
		w.sql(w.a, `truncate first`)
		w.until(`select count(*) from first`, "0")
	}},
	{"unique clashes", func(w *walk) {
		w.sql(w.b, `insert into named values (1, 'same')`)
		w.sql(w.a, `insert into named values (2, 'same'), (3, 'behind it')`)
		w.stopped()
		w.want(w.b, `select count(*) from named where id = 3`, "0")
		w.sql(w.b, `delete from named where id = 1`)
		w.until(`select count(*) from named`, "2")
	}},
	{"DDL", func(w *walk) {
		w.sql(w.a, `alter table second add more text; insert into second values (1001, 'more')`)
		w.stopped()
		w.sql(w.b, `alter table second add more text`)
		w.until(`select more from second where id = 1001`, "more")
		w.stop(w.b) // the one that runs keeps a loop in mind for a minute
		w.start(w.b)
		w.state(w.b, status.Replicating, "")
	}},
	{"audit", func(w *walk) {
		n, ok, err := w.b.Sidecar.Metric(w.Context(), `pgwaltz_subscription_errors{origin="a"}`)
		if !w.counts() { // PostgreSQL 14
			w.want(w.b, `select count(*) from pgwaltz.conflict`, "0")
			if err != nil || !ok || n != 0 {
				w.Errorf("%v errors are counted (%t, %v)", n, ok, err)
			}
			return
		}
		w.until(`select count(*) > 0 and bool_and(type in ('apply_error', 'insert_exists', 'update_missing', 'update_origin_differs', 'delete_missing', 'delete_origin_differs', 'multiple_unique_conflicts') and verdict = 'counted' and origin = 'a' and table_name is null) from pgwaltz.conflict`, "t")
		w.until(`select count(*) = count(distinct (type, reason)) and max(reason) filter (where type = 'apply_error') like 'the server has counted %' from pgwaltz.conflict`, "t")
		if err != nil || !ok || n < 2 {
			w.Errorf("%v errors are counted (%t, %v)", n, ok, err)
		}
		w.says(w.b, 0, "status", "the audit log has counts of the server only")
		w.says(w.b, 0, "conflicts", "apply_error", "-verdict", "counted")
		w.says(w.b, 0, "conflicts", "the server has counted", "show", w.sql(w.b, `select max(id) from pgwaltz.conflict`))
	}},
	{"network", func(w *walk) {
		w.want(w.a, `select application_name from pg_stat_replication`, "pgwaltz_promises_a")
		w.want(w.a, `select client_addr = '127.0.0.1' from pg_stat_replication`, "t")
	}},
	{"two regions that both write", func(w *walk) { w.bothWays() }},
}

// counts reports whether b's server counts what its workers run into.
func (w *walk) counts() bool {
	w.Helper()
	return w.sql(w.b, `select current_setting('server_version_num')::int >= 150000`) == "t"
}

// errorless wants no worker of b to have stopped, as far as its server counts that.
func (w *walk) errorless() {
	w.Helper()
	if w.counts() {
		w.want(w.b, `select coalesce(sum(apply_error_count), 0) from pg_stat_subscription_stats`, "0")
	}
}

// stopped waits until b says that its worker stops at a change; a server that counts nothing shows no more than that it has no worker.
func (w *walk) stopped() {
	w.Helper()
	words := "has no worker"
	if w.counts() {
		words = "tries it again for ever"
	}
	w.state(w.b, status.Down, words)
}

// What docs/fallback.md promises of mode native, by the program itself: run sets it up, and status, metrics, conflicts and
// check answer.
func TestNativePromises(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "promises", promisedTables...)
	w.native()
	w.says(w.b, 0, "check", "statements of mode native are not run yet")
	w.start(w.a, w.b)
	w.state(w.b, status.Replicating, "")
	w.state(w.a, status.Replicating, "")
	w.program("native", "subscription pgwaltz_promises_a, enabled")
	w.keep(nativePromises)
	w.stop(w.a, w.b)
	w.to("stream", w.b, w.a)
}

// keep shows promises, and wants each line of the document to be among them.
func (w *walk) keep(promises []promise) {
	w.Helper()
	t := w.T
	lines := tableLines(t)
	for _, p := range promises {
		ok := t.Run(p.line, func(t *testing.T) {
			part := *w
			part.T = t
			p.show(&part)
		})
		if !ok {
			t.FailNow()
		}
		if !slices.Contains(lines, p.line) {
			t.Errorf("docs/fallback.md does not speak of %s", p.line)
		}
	}
	if len(lines) != len(promises) {
		t.Errorf("docs/fallback.md promises %q, and %d of them are shown here", lines, len(promises))
	}
}

// tableLines are the first cells of the table of promises.
func tableLines(t *testing.T) (out []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/fallback.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## What each mode promises")
	rest, _, _ = strings.Cut(rest, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(rest, -1) {
		if m[1] != "---" && strings.TrimSpace(m[1]) != "" {
			out = append(out, m[1])
		}
	}
	return out
}

// native makes mode native the configured one, with the slots' own names: nothing has streamed here yet.
func (w *walk) native() {
	w.Helper()
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("mode", "native")
		r.Sidecar.Set("postgres.slot", nil)
		w.must(r.Sidecar.Setup(w.Context()))
	}
	w.sql(w.a, `select pg_drop_replication_slot('pgwaltz_a')`)
}

// program is what the commands and HTTP say of a region that replicates in mode native.
func (w *walk) program(mode, subscription string) {
	w.Helper()
	w.says(w.b, 0, "status", "mode "+mode+": weaker than the stream")
	res, err := w.b.Sidecar.CLI(w.Context(), "status", "-json")
	w.must(err)
	var st status.Status
	if err := json.Unmarshal([]byte(res.Stdout), &st); err != nil || st.Mode != mode || len(st.Weaker) == 0 || st.State != status.Replicating || len(st.Inbound) != 1 || st.Inbound[0].Origin != "a" {
		w.Errorf("status -json: %v: %s", err, res.Stdout)
	}
	for path, want := range map[string]int{"/readyz": 200, "/livez": 200, "/metrics": 200, "/status": 200} {
		if code, body, err := w.b.Sidecar.HTTP(w.Context(), "GET", path); err != nil || code != want {
			w.Errorf("%s: %d, %v: %.300s", path, code, err, body)
		}
	}
	for r, names := range map[*harness.Region][]string{
		w.a: {"pgwaltz_slot_active", `pgwaltz_state{direction="outbound",peer="",state="replicating"}`, `pgwaltz_mode{mode="` + mode + `"}`},
		w.b: {"pgwaltz_up", "pgwaltz_leader", `pgwaltz_state{direction="inbound",peer="a",state="replicating"}`, `pgwaltz_mode{mode="` + mode + `"}`},
	} {
		for _, name := range names {
			if v, ok, err := r.Sidecar.Metric(w.Context(), name); err != nil || !ok || v != 1 {
				w.Errorf("%s of %s: %v (%t, %v)", name, r.Side, v, ok, err)
			}
		}
	}
	w.says(w.b, 0, "check", "mode "+mode+": weaker than the stream")
	w.says(w.b, 0, "check", "!every change arrives twice")
	w.says(w.b, 0, "mode", subscription, "show")
	w.says(w.b, 0, "mode", "equal", "compare")
	w.within("run to have compared both sides by itself", func() bool {
		text, err := os.ReadFile(w.b.Sidecar.LogPath)
		w.must(err)
		return strings.Contains(string(text), "both sides are equal behind the switch") || strings.Contains(string(text), "tables differ behind the switch")
	})
	// It rests, and goes on.
	for range 2 {
		w.says(w.b, 0, "mode", "", "pause")
	}
	w.state(w.b, status.Down, "is disabled")
	w.sql(w.a, `insert into second values (-1)`)
	w.want(w.b, `select count(*) from second where id = -1`, "0")
	w.says(w.b, 0, "mode", "enable", "resume", "-dry-run")
	w.says(w.b, 0, "mode", "1 statements run", "resume")
	w.until(`select count(*) from second where id = -1`, "1")
	w.sql(w.a, `delete from second where id = -1`)
	w.until(`select count(*) from second where id = -1`, "0")
	w.state(w.b, status.Replicating, "")
	// A sidecar of the stream does not start beside it.
	w.b.Sidecar.Set("mode", "stream")
	w.says(w.b, 0, "check", "was switched to mode "+mode+", which counts, and the configuration says stream")
	w.b.Sidecar.Set("mode", mode)
}

// says runs a command; "!" before the text wants it not to be there.
func (w *walk) says(r *harness.Region, code int, command, text string, args ...string) {
	w.Helper()
	res, err := r.Sidecar.CLI(w.Context(), command)
	if len(args) > 0 {
		res, err = r.Sidecar.CLI(w.Context(), command, args...)
	}
	w.must(err)
	text, not := strings.CutPrefix(text, "!")
	if said := oneBlank(res.Stdout + res.Stderr); res.Code != code || strings.Contains(said, text) == not && text != "" {
		w.Errorf("%s of %s: code %d, want %d with %q (not: %t):\n%s", command, r.Side, res.Code, code, text, not, said)
	}
}

// oneBlank makes columns one blank wide.
func oneBlank(s string) string { return regexp.MustCompile(`[ \n]+`).ReplaceAllString(s, " ") }

func (w *walk) want(r *harness.Region, query, want string) {
	w.Helper()
	if got := w.sql(r, query); got != want {
		w.Errorf("%s: %s is %q, want %q", r.Side, query, got, want)
	}
}

// until waits for an answer at b.
func (w *walk) until(query, want string) {
	w.Helper()
	w.within(fmt.Sprintf("%s to be %q at b", query, want), func() bool { return w.sql(w.b, query) == want })
}

// state waits for a state of the whole region, with a reason of an inbound direction that holds the words.
func (w *walk) state(r *harness.Region, want status.State, words string) {
	w.Helper()
	said := ""
	err := harness.Poll(w.Context(), 2*time.Minute, 100*time.Millisecond, func(ctx ctxt) (bool, string, error) {
		st, err := r.Sidecar.Status(ctx)
		if err != nil {
			return false, fmt.Sprintf("status of %s: %v", r.Side, err), nil
		}
		said = fmt.Sprintf("%s to be %s (%s): %s %+v %+v", r.Side, want, words, st.State, st.Inbound, st.LastError)
		return st.State == want && (words == "" || slices.ContainsFunc(st.Inbound, func(in status.Inbound) bool { return strings.Contains(in.Reason, words) })), said, nil
	})
	w.must(err)
}
