package fallback

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// byItself configures both regions to fall back soon, and to come back soon.
func (w *walk) byItself() {
	w.Helper()
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("fallback", map[string]any{"to": "native", "after": "4s", "back_after": "3s"})
	}
}

// inMode waits until the region's switch to a mode is finished.
func (w *walk) inMode(mode string, regions ...*harness.Region) {
	w.Helper()
	for _, r := range regions {
		w.within(fmt.Sprintf("%s to be in mode %s", r.Side, mode), func() bool {
			return w.sql(r, `select mode || settled from pgwaltz.mode`) == mode+"true"
		})
	}
}

func (w *walk) cut(cut bool) {
	w.Helper()
	for _, l := range w.pair.NatsLinks() {
		if cut {
			l.Cut()
		} else {
			l.Heal()
		}
	}
}

// counted wants a region's process to have counted its switches to a mode: at least one, and as many as its log has. On a busy machine a
// process may not answer for longer than byItself allows, and then there is more than one.
func (w *walk) counted(r *harness.Region, to string) {
	w.Helper()
	name := `pgwaltz_fallback_switches_total{to="` + to + `"}`
	w.within(fmt.Sprintf("%s of %s to be what the log says", name, r.Side), func() bool {
		log, err := os.ReadFile(r.Sidecar.LogPath)
		w.must(err)
		switched := 0
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "the region was switched") && (strings.Contains(line, "to="+to) || strings.Contains(line, `"to":"`+to+`"`)) {
				switched++
			}
		}
		n, ok, err := r.Sidecar.Metric(w.Context(), name)
		return err == nil && ok && n >= 1 && n == float64(switched)
	})
}

// The way over NATS is cut while a writes: both regions go to mode native by themselves, and come back when it is healed. Then a's sidecar dies, and b
// takes its slot over; what a's sidecar finds when it starts is the mode, and both come back. Nothing is lost on the way.
func TestAutomaticFallback(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "auto")
	w.byItself()
	w.start(w.a, w.b)
	stop := w.load()
	w.arrives()
	w.copied()
	w.says(w.b, 0, "check", "")
	w.cut(true)
	w.inMode("native", w.a, w.b)
	w.arrives()
	w.state(w.b, status.Replicating, "")
	w.counted(w.b, "native")
	w.counted(w.a, "native")
	w.equalUnder(&stop, "while the link is cut")

	stop = w.load()
	w.cut(false)
	w.inMode("stream", w.a, w.b)
	w.arrives()
	w.copied()
	w.counted(w.b, "stream")
	w.want(w.b, `select count(*) from pg_subscription`, "0")
	w.equalUnder(&stop, "in the stream again")

	stop = w.load()
	w.a.Sidecar.Kill()
	w.inMode("native", w.b)
	w.arrives()
	w.equalUnder(&stop, "while a has no sidecar")
	stop = w.load()
	w.start(w.a)
	w.inMode("stream", w.a, w.b)
	w.arrives()
	w.copied()
	w.equalUnder(&stop, "with a's sidecar again")
	w.want(w.a, `select count(*) from pg_replication_slots`, "1")
}

// The applying region's process is killed behind each statement of the switch in turn, on the way there and on the way back, and is started again.
func TestAutomaticFallbackKilled(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "autokill")
	w.byItself()
	w.start(w.a, w.b)
	stop := w.load()
	w.arrives()
	w.copied()
	killed := 0
	kill := func(mode string) {
		before := w.sql(w.b, `select coalesce(mode, 'stream') from pgwaltz.mode`)
		for at := 1; at < 12; at++ {
			w.stop(w.b)
			w.b.Sidecar.Setenv("PGWALTZ_FAILPOINT", fmt.Sprintf("mode.ran:kill@%d", at))
			w.start(w.b)
			ended := false
			w.within(fmt.Sprintf("b to be killed behind statement %d on its way from %s to %s, or to be there", at, before, mode), func() bool {
				if ended = !w.b.Sidecar.Running(); ended {
					return true
				}
				st, err := w.b.Sidecar.Status(w.Context()) // of one that is at work behind its last statement
				return err == nil && st.State != status.Down && (st.Mode == mode || st.Mode == "" && mode == "stream") && w.sql(w.b, `select mode || settled from pgwaltz.mode`) == mode+"true"
			})
			w.b.Sidecar.Setenv("PGWALTZ_FAILPOINT", "")
			if !ended {
				break
			}
			killed++
			w.start(w.b)
			if at%3 == 0 { // else the next one goes on where this one was killed
				w.inMode(mode, w.b)
				break
			}
		}
		w.inMode(mode, w.a, w.b)
	}
	for range 2 {
		w.cut(true)
		kill("native")
		w.arrives()
		w.equalUnder(&stop, "in mode native")
		stop = w.load()
		w.cut(false)
		kill("stream")
		w.arrives()
		w.copied()
		w.equalUnder(&stop, "in the stream again")
		stop = w.load()
	}
	stop()
	w.Logf("killed %d times", killed)
	if killed < 6 {
		t.Errorf("it was killed %d times only", killed)
	}
}

// What cannot be done by itself is refused, said, and leaves everything as it is.
func TestAutomaticFallbackRefusals(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "autono")
	w.b.Sidecar.Set("fallback", map[string]any{"to": "native", "after": "2s", "back_after": "2s"})
	w.start(w.a, w.b) // a takes no part
	w.arrives()
	w.copied()
	w.says(w.b, 4, "check", "cannot ask region a to let go of its slot")
	w.cut(true)
	w.refused(w.b)
	w.want(w.b, `select count(*) from pg_subscription`, "0")
	w.want(w.b, `select coalesce(mode, 'none') from pgwaltz.mode`, "none")
	w.cut(false)
	w.arrives()
	if text := harness.TailFile(w.b.Sidecar.LogPath, 2000); !strings.Contains(text, "the stream is impossible, and so is the fallback") {
		t.Errorf("the log does not say it")
	}
	// A person's switch is nobody else's.
	w.a.Sidecar.Set("fallback", map[string]any{"to": "native", "after": "2s", "back_after": "2s"})
	w.stop(w.a, w.b)
	w.to("native", w.a, w.b)
	for _, r := range w.pair.Regions() {
		w.says(r, 4, "uninstall", "is in mode native")
	}
	w.start(w.a, w.b)
	w.arrives()
	w.within("more time to pass than it would come back after", func() bool {
		return w.sql(w.b, `select clock_timestamp() - since > interval '6 s' from pgwaltz.mode`) == "t"
	})
	w.want(w.b, `select mode from pgwaltz.mode`, "native")
	w.stop(w.a, w.b)
	w.to("stream", w.b, w.a)
}

// Two regions that both write fall back together from 16 on, and what both wrote comes to both. Before 16 it is refused, and said beforehand.
func TestAutomaticFallbackBothWays(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "autoboth")
	w.Cleanup(func() {
		if w.Failed() {
			w.said()
		}
	})
	w.byItself()
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("direction", "both")
	}
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN(w.b.Database)}})
	w.must(w.pair.Setup(w.Context()))
	w.start(w.a, w.b)
	w.arrives()
	write := func(from int) {
		t.Helper()
		w.sql(w.a, fmt.Sprintf(`insert into item (id, n, body) select g, 1, 'a' from generate_series(%d, %d) g`, from, from+99))
		w.sql(w.b, fmt.Sprintf(`insert into item (id, n, body) select g, 1, 'b' from generate_series(%d, %d) g`, from+100, from+199))
	}
	both := func(from int) {
		t.Helper()
		for _, r := range w.pair.Regions() {
			w.within(r.Side+" to have what both wrote", func() bool {
				return w.sql(r, fmt.Sprintf(`select count(*) from item where id between %d and %d`, from, from+199)) == "200"
			})
		}
	}
	copied := func() {
		t.Helper()
		for _, r := range w.pair.Regions() {
			w.within("the copies of "+r.Side, func() bool {
				return w.sql(r, `select count(*) from pgwaltz.copy where state <> 'done' or applied_at is null`) == "0"
			})
		}
	}
	write(1000)
	both(1000)
	copied()
	version, err := strconv.Atoi(w.sql(w.a, `show server_version_num`))
	w.must(err)
	if version < 160000 {
		w.says(w.b, 4, "check", "each change would come back for ever")
		w.cut(true)
		w.refused(w.b)
		w.want(w.b, `select coalesce(mode, 'none') from pgwaltz.mode`, "none")
		w.cut(false)
		write(2000)
		both(2000)
		return
	}
	w.says(w.b, 0, "check", "goes to mode native when the stream is impossible for 4s", "-all")
	w.cut(true)
	w.inMode("native", w.a, w.b)
	write(2000)
	both(2000)
	w.sql(w.a, `delete from item where id between 2100 and 2119`)
	w.within("the deletes to be at b", func() bool { return w.sql(w.b, `select count(*) from item where id >= 2000`) == "180" })
	w.equal("in mode native")
	w.cut(false)
	w.inMode("stream", w.a, w.b)
	write(3000)
	both(3000)
	for _, r := range w.pair.Regions() {
		w.want(r, `select count(*) from pg_subscription`, "0")
	}
	w.equal("in the stream again")
	w.a.Sidecar.Kill() // perhaps amid a copy; b applies what a commits; b's changes wait for a's process
	w.inMode("native", w.b)
	write(4000)
	w.until(`select count(*) from item where id >= 4000`, "200")
	w.start(w.a)
	both(4000)
	w.inMode("stream", w.a, w.b)
	write(5000)
	both(5000)
	copied()
	w.equal("with a's sidecar again")
}

// refused waits until a region says that the switch is due and cannot be made.
func (w *walk) refused(r *harness.Region) {
	w.Helper()
	w.within(r.Side+" to say that it is refused", func() bool {
		n, ok, err := r.Sidecar.Metric(w.Context(), "pgwaltz_fallback_refused")
		return err == nil && ok && n == 1
	})
}

// said logs what the sidecars have said of the fallback.
func (w *walk) said() {
	w.Helper()
	for _, r := range w.pair.Regions() {
		text, err := os.ReadFile(r.Sidecar.LogPath)
		w.must(err)
		for line := range strings.SplitSeq(string(text), "\n") {
			if strings.Contains(line, "fallback") || strings.Contains(line, "switch") {
				w.Logf("%s: %s", r.Side, line)
			}
		}
	}
}
