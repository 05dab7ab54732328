package fallback

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// walk is a pair of which a publishes and b applies.
type walk struct {
	*testing.T
	pair *harness.Pair
	a, b *harness.Region
}

// tables are made in both regions besides item.
func newWalk(t *testing.T, name string, tables ...string) *walk {
	t.Helper()
	return newWalkOn(t, nil, name, tables...)
}

// newWalkOn is newWalk on servers with more settings.
func newWalkOn(t *testing.T, more map[string]string, name string, tables ...string) *walk {
	t.Helper()
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	settings := map[string]string{"wal_retrieve_retry_interval": "200ms"}
	maps.Copy(settings, more)
	fleet, err := harness.NewFleet(harness.ClusterConfig{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	pair, err := fleet.Pair(t.Context(), name, harness.PairOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{T: t, pair: pair, a: pair.A, b: pair.B}
	t.Cleanup(func() {
		if t.Failed() {
			for _, r := range pair.Regions() {
				t.Logf("%s: %s", r.Side, harness.TailFile(r.Sidecar.LogPath, 15))
				t.Logf("server of %s: %s", r.Side, harness.TailFile(r.Cluster.LogPath, 8))
			}
		}
		pair.Close()
	})
	w.a.Sidecar.Set("direction", "publish")
	w.b.Sidecar.Set("direction", "apply")
	w.b.Sidecar.Set("peers", []any{map[string]any{"region": "a", "dsn": w.a.Cluster.DSN(name)}})
	for _, r := range pair.Regions() {
		r.Sidecar.Set("publish.heartbeat", "1s")
		w.sql(r, `create table item (id int primary key, n int not null, body text, version bigint not null default 1, updated_at timestamptz not null default now())`)
		for _, text := range tables {
			w.sql(r, text)
		}
	}
	w.must(pair.Setup(t.Context()))
	return w
}

func (w *walk) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *walk) sql(r *harness.Region, text string) string {
	w.Helper()
	out, err := r.Cluster.PSQL(w.Context(), r.Database, text)
	w.must(err)
	return strings.TrimSpace(out)
}

func (w *walk) start(regions ...*harness.Region) {
	w.Helper()
	for _, r := range regions {
		w.must(r.Sidecar.Start())
	}
}

func (w *walk) stop(regions ...*harness.Region) {
	w.Helper()
	for _, r := range regions {
		_, err := r.Sidecar.Stop(w.Context(), time.Minute)
		w.must(err)
	}
}

// mode runs `pgwaltz mode switch`, and returns its exit code and all that it said.
func (w *walk) mode(r *harness.Region, args ...string) (int, string) {
	w.Helper()
	res, err := r.Sidecar.CLI(w.Context(), "mode", append([]string{"switch", "--compare", "0"}, args...)...)
	w.must(err)
	return res.Code, res.Stdout + res.Stderr
}

func (w *walk) to(mode string, regions ...*harness.Region) {
	w.Helper()
	for _, r := range regions {
		if code, text := w.mode(r, mode); code != 0 {
			w.Fatalf("switch %s to %s: code %d: %s", r.Side, mode, code, text)
		}
	}
}

// within waits for a condition, generously: other work runs beside.
func (w *walk) within(what string, f func() bool) {
	w.Helper()
	err := harness.Poll(w.Context(), 2*time.Minute, 100*time.Millisecond, func(context.Context) (bool, string, error) { return f(), what, nil })
	w.must(err)
}

// arrives waits until what a wrote up to now is at b: a row written behind it.
func (w *walk) arrives() {
	w.Helper()
	w.sql(w.a, `insert into item (id, n) values (0, 1) on conflict (id) do update set n = item.n + 1, version = item.version + 1, updated_at = clock_timestamp()`)
	n := w.sql(w.a, `select n from item where id = 0`)
	w.within("row 0 of a to arrive at b", func() bool { return w.sql(w.b, `select n from item where id = 0`) == n })
}

// load writes at a until it is stopped: inserts, updates, deletes, and deleted keys again. What it returns stops it,
// and says how many transactions there were.
func (w *walk) load() (stop func() int64) {
	w.Helper()
	conn, err := pgx.Connect(w.Context(), w.a.Cluster.DSN(w.a.Database))
	w.must(err)
	var n atomic.Int64
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { // ends with stop, or with the test
		defer conn.Close(context.Background())
		pace := time.NewTicker(4 * time.Millisecond)
		defer pace.Stop()
		for i := int64(1); ; i++ {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-pace.C:
			}
			sql := fmt.Sprintf(`insert into item (id, n, body) values (%[1]d, %[2]d, repeat('x', %[1]d)) on conflict (id) do update set n = excluded.n, version = item.version + 1, updated_at = clock_timestamp()`, 1+i*7%300, i)
			if i%5 == 0 {
				sql = fmt.Sprintf(`delete from item where id = %d`, 1+i*3%300)
			}
			if _, err := conn.Exec(context.WithoutCancel(ctx), sql); err != nil {
				done <- err
				return
			}
			n.Add(1)
		}
	}()
	return func() int64 {
		w.Helper()
		cancel()
		w.must(<-done)
		return n.Load()
	}
}

// equal compares the table of both regions by an ordered hash.
func (w *walk) equal(when string) {
	w.Helper()
	if err := w.pair.Equal(w.Context(), "public.item"); err != nil {
		w.Fatalf("%s: %v", when, err)
	}
}

// The stream's slot goes to a subscription and back while a writes, and the program is killed behind each of its statements.
func TestHandOver(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "handover")
	w.start(w.a, w.b)
	stop := w.load()
	w.arrives()
	if code, text := w.mode(w.b, "native"); code != 4 || !strings.Contains(text, "a sidecar of region b is at work") {
		t.Fatalf("beside a sidecar: code %d: %s", code, text)
	}
	w.copied()
	w.stop(w.a, w.b)
	if code, text := w.mode(w.b, "--dry-run", "native"); code != 0 || !strings.Contains(text, "create_slot = false") || !strings.Contains(text, "copy_data = false") || !strings.Contains(text, "pg_replication_origin_advance") {
		t.Fatalf("dry run: code %d: %s", code, text)
	}
	w.to("native", w.a)
	w.killed(w.b, "native")
	w.arrives()
	w.equalUnder(&stop, "in mode native")
	w.errorless() // else something came twice

	w.sql(w.b, `update item set body = 'another' where id = 0`)
	if res, err := w.b.Sidecar.CLI(w.Context(), "mode", "compare", "-wait", "1s"); err != nil || res.Code != 7 || !strings.Contains(res.Stdout, "differs") {
		w.Errorf("compare of what differs: code %d, %v: %s", res.Code, err, res.Stdout+res.Stderr)
	}
	w.sql(w.b, `update item set body = null where id = 0`)

	stop = w.load()
	w.killed(w.b, "stream")
	w.killed(w.a, "stream")
	w.start(w.a, w.b)
	w.arrives()
	w.equalUnder(&stop, "in the stream again")
	if got := w.sql(w.b, `select count(*) from pg_subscription`); got != "0" {
		t.Errorf("%s subscriptions are left", got)
	}
	if got := w.sql(w.a, `select count(*) from pg_replication_slots`); got != "1" {
		t.Errorf("%s slots at a", got)
	}
}

// copied waits for the copy at the beginning.
func (w *walk) copied() {
	w.Helper()
	w.within("the copy at the beginning to be at b", func() bool {
		return w.sql(w.a, `select count(*) from pgwaltz.copy where state <> 'done' or applied_at is null`) == "0"
	})
}

// equalUnder stops the load, waits until all has come, and compares.
func (w *walk) equalUnder(stop *func() int64, when string) {
	w.Helper()
	n := (*stop)()
	w.arrives()
	w.equal(when)
	res, err := w.b.Sidecar.CLI(w.Context(), "mode", "compare")
	w.must(err)
	if res.Code != 0 || !strings.Contains(res.Stdout, "equal") || strings.Contains(res.Stdout, "differs") {
		w.Errorf("%s: compare: code %d: %s", when, res.Code, res.Stdout+res.Stderr)
	}
	w.Logf("%s: equal after %d transactions", when, n)
}

// killed switches with a kill behind each statement in turn: a run is killed behind the first one that it runs, and the next run
// goes on. Where a run does again what the one before did, it is let go one further. Every statement that a dry run names has
// been killed behind in the end.
func (w *walk) killed(r *harness.Region, mode string) {
	w.Helper()
	code, text := w.mode(r, "--dry-run", mode)
	if code != 0 {
		w.Fatalf("dry run: code %d: %s", code, text)
	}
	left := reasons(text)
	defer r.Sidecar.Setenv("PGWALTZ_FAILPOINT", "")
	at, kills, before := 1, 0, ""
	for range 60 {
		r.Sidecar.Setenv("PGWALTZ_FAILPOINT", fmt.Sprintf("mode.ran:kill@%d", at))
		code, text := w.mode(r, mode)
		if code == 0 {
			if len(left) > 0 {
				w.Errorf("%s to %s: nothing was killed behind %q", r.Side, mode, left)
			}
			w.Logf("%s to %s: killed %d times", r.Side, mode, kills)
			return
		}
		switch {
		case strings.Contains(text, "is at work"): // the server has not noticed the death yet
			continue
		case strings.Contains(text, "Error"):
			w.Fatalf("switch %s to %s behind %d kills: %s", r.Side, mode, kills, text)
		}
		kills++
		at++
		if ran := reasons(text); len(ran) > 0 {
			last := ran[len(ran)-1]
			left = slices.DeleteFunc(left, func(s string) bool { return s == last })
			if at = 1; last == before {
				at = len(ran) + 1
			}
			before = last
		}
	}
	w.Fatalf("switch %s to %s does not end", r.Side, mode)
}

// reasons are those of the statements that a switch has printed and that were to be run, one each.
func reasons(text string) (out []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if why, ok := strings.CutPrefix(line, "-- "); ok && !strings.HasSuffix(why, "(done already)") && !strings.HasPrefix(why, "pgwaltz ") && !strings.HasPrefix(why, "at ") {
			out = append(out, why)
		}
	}
	return out
}
