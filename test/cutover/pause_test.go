package cutover

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Each kind of right is taken from each kind of role, what is open is ended, and all of it is given back as it was. A plan changes nothing.
func TestPause(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "pausing")
	before := w.everything()
	text := w.ok("plan")
	if !strings.Contains(text, "pause-write --source "+w.id(w.a)+" --destination "+w.id(w.b)) || !strings.Contains(text, "sidecar") {
		t.Errorf("plan: %s", text)
	}
	w.same(before, "behind plan")
	l := w.load(w.a, 3)
	defer l.stop()
	w.within("the load to begin", func() bool { return l.n() > 20 })
	w.ok(w.pause()...)
	n := w.sql(w.a, `select count(*), max(id) from item`)
	w.stopped(w.a)
	w.ok(w.pause()...) // again
	w.stopped(w.a)
	if now := w.sql(w.a, `select count(*), max(id) from item`); now != n {
		t.Errorf("rows came behind the pause: %s, then %s", n, now)
	}
	at := l.n()
	w.ok("resume-write")
	w.within("the load to go on", func() bool { return l.n() > at+20 })
	l.stop()
	w.ok("abort")
	w.ok("abort")
	w.ok("resume-write")
	w.sameRights(before, "behind abort")
}

// sameRights is same, but for sequences that the load has used.
func (w *walk) sameRights(before, when string) {
	w.Helper()
	w.same(withThing(before, w.everything()), when)
}

// withThing takes the lines of the load's sequence from now.
func withThing(before, now string) string {
	var lines []string
	for line := range strings.SplitSeq(now, "\n") {
		if strings.HasPrefix(line, "sequence thing_id_seq") {
			lines = append(lines, line)
		}
	}
	var out []string
	for line := range strings.SplitSeq(before, "\n") {
		if strings.HasPrefix(line, "sequence thing_id_seq") && len(lines) > 0 {
			line, lines = lines[0], lines[1:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// Whatever it dies at, pause-write leaves all or nothing, a second one goes on, and abort puts back what was there.
func TestPauseKilled(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "pausekilled")
	before := w.everything()
	for _, point := range []string{"cutover.taken", "cutover.paused", "cutover.round", "cutover.round:kill@3", "cutover.drained"} {
		if !strings.Contains(point, ":") {
			point += ":kill"
		}
		code, text := w.run(point, w.pause()...)
		if code == 0 {
			t.Errorf("%s: not killed: %s", point, text)
		}
		if point == "cutover.taken:kill" {
			w.same(before, "killed before it was committed")
		} else {
			w.stopped(w.a)
		}
		if code, _ := w.run("", "wait", "--timeout", "1s"); code == 0 && point != "cutover.drained:kill" {
			t.Errorf("%s: wait takes a pause that is not finished", point)
		}
		w.ok(w.pause()...)
		w.stopped(w.a)
		for _, point := range []string{"cutover.released:kill", "cutover.given:kill"} {
			// Behind the first one nothing is held any more, so nothing is given.
			if code, text := w.run(point, "abort"); code == 0 && point == "cutover.released:kill" {
				t.Errorf("abort was not killed at %s: %s", point, text)
			}
		}
		w.ok("abort")
		w.same(before, point)
	}
	// An error is a failure as well: then writes are given back before the command ends.
	code, text := w.run("cutover.round:error", w.pause()...)
	if code == 0 || !strings.Contains(text, "writes are given back") {
		t.Errorf("code %d: %s", code, text)
	}
	w.ok("abort")
	w.same(before, "behind an error")
}

// Nobody comes back to a pause: the sidecar gives writes back when the time is over, and so does the next command where none runs.
func TestPauseIsOver(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "over")
	before := w.everything()
	_, text := w.run("cutover.drained:kill", w.pause("--timeout", "5s", "--hold", "5s")...)
	w.within("the sidecar to give writes back: "+text, func() bool { return w.as(w.a, "app", `delete from item`) == "" })
	if code, text := w.run("", "wait"); code != 4 || !strings.Contains(text, "given back") {
		t.Errorf("wait: code %d: %s", code, text)
	}
	_, err := w.a.Sidecar.Stop(t.Context(), time.Minute)
	w.must(err)
	w.ok("abort")
	w.same(before, "given back by the sidecar")

	_, _ = w.run("cutover.drained:kill", w.pause("--timeout", "5s", "--hold", "5s")...)
	w.within("the time to be over", func() bool {
		return w.sql(w.a, `select deadline < clock_timestamp() from pgwaltz.cutover`) == "t"
	})
	w.stopped(w.a)
	if code, text := w.run("", "sequences"); code != 4 || !strings.Contains(text, "given back") {
		t.Errorf("sequences: code %d: %s", code, text)
	}
	if got := w.as(w.a, "app", `delete from item`); got != "" {
		t.Errorf("app cannot write: %s", got)
	}
	w.ok("abort")
	w.same(before, "given back by a command")
}

// A prepared transaction may be committed whatever the rights are: the pause waits for it, and gives writes back when it does not go.
func TestPauseIsNotReached(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "prepared")
	before := w.everything()
	w.sql(w.a, `begin; insert into item (id, n) values (5, 5); prepare transaction 'open'`)
	code, text := w.run("", w.pause("--timeout", "2s")...)
	if code == 0 || !strings.Contains(text, `prepared transaction "open"`) || !strings.Contains(text, "writes are given back") {
		t.Errorf("code %d: %s", code, text)
	}
	if got := w.as(w.a, "app", `delete from item`); got != "" {
		t.Errorf("app cannot write: %s", got)
	}
	w.sql(w.a, `rollback prepared 'open'`)
	w.ok("abort")
	w.same(before, "not reached")
}

// Ctrl-C gives writes back.
func TestPauseIsInterrupted(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "interrupted")
	before := w.everything()
	w.sql(w.a, `begin; insert into item (id, n) values (5, 5); prepare transaction 'open'`)
	bin, err := harness.Product()
	w.must(err)
	conf, err := w.a.Sidecar.ConfigPath()
	w.must(err)
	p, err := harness.StartProcess(harness.Spec{Name: "pause-write", Path: bin, Args: append([]string{"cutover", "-config", conf}, w.pause()...), Dir: t.TempDir(), Log: filepath.Join(w.pair.Dir(), "pause.log")})
	w.must(err)
	defer p.Kill()
	w.within("writes to be paused", func() bool {
		return w.sql(w.a, `select to_regprocedure('pgwaltz.cutover_back_out(boolean)') is not null`) == "t"
	})
	w.stopped(w.a)
	w.must(p.Signal(syscall.SIGINT))
	code, err := p.Wait(t.Context(), time.Minute)
	if said := harness.TailFile(filepath.Join(w.pair.Dir(), "pause.log"), 5); err != nil || code == 0 || !strings.Contains(said, "writes are given back") {
		t.Errorf("code %d, %v: %s", code, err, said)
	}
	w.sql(w.a, `rollback prepared 'open'`)
	w.ok("abort")
	w.same(before, "interrupted")
}

// What would be a pause that does not hold, or could not be given back, is refused with its reason, and nothing is changed.
func TestPauseIsRefused(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "refused")
	for _, c := range []struct{ what, make, undo, code string }{
		{"a member of a role that is left alone", `grant sidecar to app`, `revoke sidecar from app`, "may_become|members of roles"},
		{"granted by another one than the owner", `set role boss; grant insert on other.thing to reader`, `revoke insert on other.thing from boss cascade; grant truncate, insert on other.thing to boss with grant option`, "granted by"},
	} {
		w.sql(w.a, c.make)
		before := w.everything()
		for _, words := range [][]string{w.pause(), {"plan"}} {
			code, text := w.run("", words...)
			_, says, ok := strings.Cut(c.code, "|")
			if !ok {
				says = c.code
			}
			if code != 4 || !strings.Contains(text, says) {
				t.Errorf("%s: %s: code %d: %s", c.what, words[0], code, text)
			}
		}
		w.same(before, c.what)
		w.sql(w.a, c.undo)
	}
	before := w.everything()
	for _, words := range [][]string{
		{"pause-write", "--source", w.id(w.b), "--destination", w.id(w.a)},
		{"pause-write"},
		{"wait"}, {"sequences"}, {"finish"},
		{"plan", "--to", "nobody"},
	} {
		if code, text := w.run("", words...); code == 0 {
			t.Errorf("%s: %s", words, text)
		}
	}
	w.same(before, "refused")
}

// One role does everything, the sidecar's work as well. The tool dies, the server crashes in the pause, and comes back: writes are paused still, and given back
// when the time is over.
func TestPauseOutlivesACrash(t *testing.T) {
	t.Parallel()
	w := newWalkOn(t, nil, "crash", func(w *walk) {
		for _, r := range w.pair.Regions() {
			r.Sidecar.Set("postgres.admin_dsn", nil)
			r.Sidecar.Set("postgres.dsn", r.Cluster.DSN(r.Database))
		}
	})
	w.must(w.pair.WaitInStep(t.Context(), 2*time.Minute))
	before := w.everything()
	if code, text := w.run("cutover.paused:kill", w.pause("--timeout", "20s", "--hold", "20s")...); code == 0 {
		t.Errorf("not killed: %s", text)
	}
	w.must(w.a.Cluster.Stop(t.Context(), harness.StopImmediate, time.Minute))
	w.must(w.a.Cluster.Start(t.Context()))
	w.stopped(w.a)
	w.within("the sidecar to give writes back", func() bool { return w.as(w.a, "app", `delete from item`) == "" })
	w.ok("abort")
	w.same(before, "behind a crash")
	w.must(w.pair.WaitInStep(t.Context(), 2*time.Minute))
}
