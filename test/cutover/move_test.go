package cutover

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// equal wants both regions to hold the same rows.
func (w *walk) equal(when string) {
	w.Helper()
	for _, table := range []string{"item", "other.thing", "other.wide", "probe"} {
		q := `select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) from ` + table + ` t`
		if a, b := w.sql(w.a, q), w.sql(w.b, q); a != b {
			w.Errorf("%s: %s has %s here and %s there", when, table, a, b)
		}
	}
}

// positions are the next numbers of all sequences.
func (w *walk) positions(r *harness.Region) map[string]string {
	w.Helper()
	out := map[string]string{}
	for _, name := range []string{"other.thing_id_seq", "other.wide_id_seq", "other.down", "other.round", `"Never used"`} {
		out[name] = w.sql(r, `select last_value || case when is_called then '' else '?' end from `+name)
	}
	return out
}

// The walk of docs/cutover.md: from a to b under load, and back again, with the stream underneath. Nothing is lost, nothing is written at the source behind the pause,
// and no number is given out twice.
func TestCutover(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, nil, "cutover", func(w *walk) { w.ok(w.line("rehearse prepare")...) })
	w.must(w.pair.WaitInStep(t.Context(), 2*time.Minute))
	w.sql(w.a, `select nextval('other.down') from generate_series(1, 5); select nextval('other.round') from generate_series(1, 23); select nextval('other.wide_id_seq') from generate_series(1, 7)`)
	l := w.load(w.a, 3)
	defer l.stop()
	w.within("the load to begin", func() bool { return l.n() > 50 })
	r := w.rehearse()
	w.within("the rehearsal to begin", func() bool { return w.sql(w.b, `select count(*) > 5 from pgwaltz_rehearsal`) == "t" })
	if code, found := w.look(); code != 0 || found["cutover"] != nil {
		t.Errorf("monitor: code %d: %v", code, found)
	}
	there, back := w.documented()
	for _, words := range there {
		if words[0] == "finish" {
			if a, b := w.positions(w.a), w.positions(w.b); a["other.down"] != b["other.down"] || a["other.round"] != b["other.round"] || a["other.wide_id_seq"] != b["other.wide_id_seq"] || a["other.thing_id_seq"] != b["other.thing_id_seq"] || b[`"Never used"`] != "1?" {
				t.Errorf("sequences: %v and %v", a, b)
			}
		}
		w.ok(words...)
		switch words[0] {
		case "pause-write":
			w.stopped(w.a)
			w.sees("paused", true)
		case "wait":
			w.sees("arrived", true, "--max-lag-bytes", "1000000000")
			w.equal("behind wait")
			if code, text := w.run("", "finish"); code != 4 || !strings.Contains(text, "sequences") {
				t.Errorf("finish before sequences: code %d: %s", code, text)
			}
		}
	}
	w.ok("finish")
	if code, text := w.run("", "resume-write"); code != 4 || !strings.Contains(text, "both regions") {
		t.Errorf("resume-write behind finish: code %d: %s", code, text)
	}
	w.stopped(w.a)
	n := l.stop()
	if got := w.sql(w.a, `select count(*) from item`); got != w.sql(w.b, `select count(*) from item`) {
		t.Errorf("%s items at a, %d transactions were committed", got, n)
	}

	// The application is at b now. What it writes comes to a, whose own roles cannot write: the way back is open.
	moved := w.load(w.b, 3)
	defer moved.stop()
	w.within("the load to begin at b", func() bool { return moved.n() > 50 })
	for _, words := range back {
		w.ok(words...)
		switch words[0] {
		case "pause-write":
			w.stopped(w.b)
		case "wait":
			w.equal("behind wait, on the way back")
		}
	}
	moved.stop()
	w.stopped(w.b)
	w.sees("finished", true, "--from", "b")
	if got := w.as(w.a, "app", `insert into other.thing (body) values ('home again')`); got != "" {
		t.Errorf("app cannot write at a: %s", got)
	}
	rows := w.sql(w.a, `select count(*) from pgwaltz_rehearsal`)
	w.within("the rehearsal to go on at a", func() bool { return w.sql(w.a, `select count(*) from pgwaltz_rehearsal`) != rows })
	r.clean("a", "b", "a")
	w.must(w.pair.WaitInStep(t.Context(), 2*time.Minute))
	w.equal("in the end")
	w.ok(w.line("rehearse remove")...)
}

// documented are the commands of the walk in docs/cutover.md, there and back, without the name of the file.
func (w *walk) documented() (there, back [][]string) {
	w.Helper()
	text, err := os.ReadFile("../../docs/cutover.md")
	w.must(err)
	names := strings.NewReplacer("EU-ID", w.id(w.a), "US-ID", w.id(w.b), "--from us", "--from b", " --config eu.yaml", "")
	for line := range strings.SplitSeq(string(text), "\n") {
		command, ok := strings.CutPrefix(line, "pgwaltz cutover ")
		switch words := strings.Fields(names.Replace(command)); {
		case !ok || !slices.Contains([]string{"plan", "pause-write", "wait", "sequences", "finish"}, words[0]):
		case strings.Contains(line, "--from"):
			back = append(back, words)
		default:
			there = append(there, words)
		}
	}
	if len(there) != 5 || len(back) != 5 {
		w.Fatalf("%d and %d commands in docs/cutover.md", len(there), len(back))
	}
	return there, back
}

// line is a command of docs/cutover.md, the first one that begins so, without the name of the file.
func (w *walk) line(begins string) []string {
	w.Helper()
	text, err := os.ReadFile("../../docs/cutover.md")
	w.must(err)
	for line := range strings.SplitSeq(string(text), "\n") {
		if command, ok := strings.CutPrefix(line, "pgwaltz cutover "+begins); ok {
			return strings.Fields(strings.Replace(begins+command, " --config eu.yaml", "", 1))
		}
	}
	w.Fatalf("docs/cutover.md does not say: pgwaltz cutover %s", begins)
	return nil
}

// Every step is killed behind each thing it does, and run again; in the end abort puts both databases back.
func TestStepsKilled(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "stepskilled")
	w.sql(w.a, `select nextval('other.down') from generate_series(1, 5); select nextval('other.round') from generate_series(1, 23); select nextval('other.wide_id_seq') from generate_series(1, 7)`)
	before := w.everything()
	w.ok(w.pause()...)
	killed := func(point string, words ...string) {
		t.Helper()
		if code, text := w.run(point, words...); code == 0 {
			t.Errorf("%s is not killed at %s: %s", words[0], point, text)
		}
	}
	steps := func() {
		t.Helper()
		killed("cutover.barred:kill", "wait", "--probe", "public.probe")
		killed("cutover.probed:kill", "wait", "--probe", "public.probe")
		if code, text := w.run("", "finish"); code == 0 {
			t.Errorf("finish without wait: %s", text)
		}
		killed("cutover.arrived:kill", "wait", "--probe", "public.probe")
		w.ok("wait", "--probe", "public.probe")
		w.sql(w.a, `delete from probe`) // of the one that was killed
		for _, point := range []string{"cutover.noted:kill", "cutover.set:kill", "cutover.set:kill", "cutover.set:kill", "cutover.sequenced:kill"} {
			killed(point, "sequences")
		}
		w.ok("sequences")
	}
	steps()
	for _, point := range []string{"cutover.given:kill", "cutover.setback:kill", "cutover.setback:kill"} {
		killed(point, "abort")
	}
	w.ok("abort")
	w.same(before, "behind abort")

	w.ok(w.pause()...)
	steps()
	killed("cutover.finished:kill", "finish")
	w.stopped(w.a)
	w.ok("finish")
	w.stopped(w.a)
	if code, text := w.run("", "abort"); code == 0 {
		t.Errorf("abort behind finish: %s", text)
	}
	w.ok("abort", "--force")
}

// What does not come is not taken for arrived: the destination's sidecar is down. Writes stay paused meanwhile.
func TestWaitIsOver(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "waiting")
	w.b.Sidecar.Kill()
	w.sql(w.a, `insert into item (id, n) values (1, 1)`)
	w.ok(w.pause()...)
	code, text := w.run("", "wait", "--timeout", "2s")
	if code == 0 || !strings.Contains(text, "not within 2s") {
		t.Errorf("code %d: %s", code, text)
	}
	w.stopped(w.a)
	w.must(w.b.Sidecar.Start())
	w.sql(w.a, `grant insert on item to app`)
	if code, text := w.run("", "wait", "--timeout", "2m"); code != 4 || !strings.Contains(text, "app INSERT on public.item") {
		t.Errorf("wait while app can write: code %d: %s", code, text)
	}
	w.sql(w.a, `revoke insert on item from app`)
	w.ok("wait", "--timeout", "2m")
	w.equal("arrived")

	// Without the destination, writes can be given back still.
	w.must(w.b.Cluster.Stop(t.Context(), harness.StopFast, time.Minute))
	w.ok("resume-write")
	if got := w.as(w.a, "app", `delete from item`); got != "" {
		t.Errorf("app cannot write: %s", got)
	}
	if code, text := w.run("", "abort"); code != 6 || !strings.Contains(text, "out of reach") {
		t.Errorf("abort: code %d: %s", code, text)
	}
}
