package fallback

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

type ctxt = context.Context

// bothWays makes both regions publish and apply. Before 16 it is refused, and nothing is made; from 16 on nothing comes back,
// and where both wrote a row the way back to the stream settles it. Both regions are in mode native, a to b.
func (w *walk) bothWays() {
	w.Helper()
	version, err := strconv.Atoi(w.sql(w.a, `show server_version_num`))
	w.must(err)
	w.stop(w.a, w.b)
	w.a.Sidecar.Set("direction", "both")
	w.b.Sidecar.Set("direction", "both")
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN(w.b.Database)}})
	w.must(w.b.Sidecar.Setup(w.Context()))
	w.must(w.a.Sidecar.Setup(w.Context()))
	if version < 160000 {
		if code, text := w.mode(w.a, "native"); code != 4 || !strings.Contains(text, "each change would come back for ever (origin = none needs 16 on both sides)") {
			w.Errorf("both ways: code %d: %s", code, text)
		}
		w.want(w.a, `select count(*) from pg_subscription`, "0")
		w.a.Sidecar.Set("direction", "publish")
		w.b.Sidecar.Set("direction", "apply")
		w.start(w.a, w.b)
		w.state(w.b, status.Replicating, "")
		return
	}
	w.Logf("PostgreSQL %d: both ways", version)
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("copy.mode", "off") // both have the rows already
	}
	w.to("native", w.a, w.b)
	w.start(w.a, w.b)
	w.state(w.a, status.Replicating, "")
	w.state(w.b, status.Replicating, "")
	w.sql(w.b, `select pg_stat_reset_subscription_stats(null)`) // of the clashes before
	for i := range 100 {
		w.sql(w.a, fmt.Sprintf(`insert into item (id, n, body) values (%d, 1, 'a')`, 2000+i))
		w.sql(w.b, fmt.Sprintf(`insert into item (id, n, body) values (%d, 1, 'b')`, 3000+i))
	}
	for _, r := range w.pair.Regions() {
		w.within(r.Side+" to have what both wrote", func() bool { return w.sql(r, `select count(*) from item where id >= 2000`) == "200" })
		w.want(r, `select coalesce(sum(apply_error_count), 0) from pg_stat_subscription_stats`, "0") // 16 and later
	}
	// An update of the same row on both sides at once: each takes the other's. The stream's copy settles it.
	w.stop(w.a, w.b)
	for _, r := range w.pair.Regions() {
		w.sql(r, `alter subscription pgwaltz_promises_`+map[string]string{"a": "b", "b": "a"}[r.Name]+` disable`)
	}
	w.sql(w.a, `update item set body = 'of a', version = 7 where id = 2000`)
	w.sql(w.b, `update item set body = 'of b', version = 8 where id = 2000`)
	for _, r := range w.pair.Regions() {
		w.sql(r, `alter subscription pgwaltz_promises_`+map[string]string{"a": "b", "b": "a"}[r.Name]+` enable`)
	}
	w.within("each to have the other's", func() bool {
		return w.sql(w.a, `select body from item where id = 2000`) == "of b" && w.sql(w.b, `select body from item where id = 2000`) == "of a"
	})
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("copy.mode", nil)
		r.Sidecar.Set("mode", "stream")
	}
	w.to("stream", w.a, w.b)
	w.start(w.a, w.b)
	for _, r := range w.pair.Regions() {
		w.within(r.Side+" to have the newer one", func() bool { return w.sql(r, `select body from item where id = 2000`) == "of b" })
	}
	w.arrives()
	w.equal("in the stream again")
	for _, r := range w.pair.Regions() {
		r.Sidecar.Set("mode", "native")
	}
}
