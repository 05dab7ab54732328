package settings

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// oneWay: a region that only sends, and one that only receives; where the listener is.
func oneWay(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	port, err := pgcluster.FreePort()
	s.must(err)
	httpPort, err := pgcluster.FreePort()
	s.must(err)
	a.Sidecar.HTTPAddr = fmt.Sprintf("127.0.0.1:%d", httpPort)
	s.give(a, map[string]any{"direction": "publish", "nats.listen": fmt.Sprintf("127.0.0.1:%d", port), "http.listen": a.Sidecar.HTTPAddr})
	s.give(b, map[string]any{"direction": "apply", "nats.dial": []any{fmt.Sprintf("nats-leaf://127.0.0.1:%d", port)}})
	s.must(s.pair.Setup(s.Context()))
	s.run(a, b)
	s.sql(a, "insert into t(id) values (1)")
	s.sql(b, "insert into t(id) values (2)")
	s.until(b, "select string_agg(id::text, ',' order by id) from t", "1,2")
	s.want(a, "select string_agg(id::text, ',' order by id) from t", "1")
	s.want(b, "select count(*) from pg_replication_slots where database = current_database()", "0")
	s.within("the port for http", func() (bool, string) {
		_, err := a.Sidecar.Status(s.Context())
		return err == nil, fmt.Sprint(err)
	})
	// How long a stop may wait for a peer that does not apply what is on its way.
	s.give(a, map[string]any{"shutdown_timeout": "300ms"})
	_, err = a.Sidecar.Stop(s.Context(), 30*time.Second)
	s.must(err)
	stop := func(id int) time.Duration {
		s.run(a)
		s.within("both to see each other", func() (bool, string) {
			st, err := a.Sidecar.Status(s.Context())
			return err == nil && st.Outbound != nil && st.Outbound.SlotActive && len(st.Outbound.Peers) == 1 && st.Outbound.Peers[0].Reachable, fmt.Sprint(err)
		})
		s.must(b.Sidecar.Process().Freeze())
		defer func() { s.must(b.Sidecar.Process().Continue()) }()
		s.sql(a, fmt.Sprintf("insert into t(id) values (%d)", id))
		began := time.Now()
		_, err := a.Sidecar.Stop(s.Context(), 30*time.Second)
		s.must(err)
		return time.Since(began)
	}
	short := stop(3)
	s.set(a.Sidecar, "shutdown_timeout", "9s")
	if long := stop(4); long < short+2*time.Second {
		s.Errorf("a stop takes %s with shutdown_timeout 300ms, and %s with 9s", short, long)
	}
}

// copies: rows that were there before.
func copies(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	s.sql(a, "insert into t(id) select g from generate_series(1,60) g")
	s.sql(b, "insert into t(id) select g from generate_series(101,160) g")
	s.give(a, map[string]any{"copy.chunk_rows": 5})
	s.give(b, map[string]any{"copy.mode": "off"})
	s.must(s.pair.Setup(s.Context()))
	s.run(a)
	s.within("a copy in steps", func() (bool, string) {
		if _, err := a.Sidecar.Status(s.Context()); err != nil {
			return false, err.Error()
		}
		n := s.number(a, "outbound.stream_messages")
		return n >= 12, fmt.Sprint(n)
	})
	s.run(b)
	s.until(b, "select count(*) from t", "120")
	s.sql(b, "insert into t(id) values (200)")
	s.until(a, "select count(*) from t where id = 200", "1")
	s.want(a, "select count(*) from t where id between 101 and 160", "0")
}

// pace: how changes are put together, in frames and in local transactions.
func pace(s *scene) {
	s.open(harness.PairOptions{Topology: harness.External}, "create table t(id int primary key, v text, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	s.give(a, map[string]any{"publish.linger": "900ms", "publish.frame_bytes": "1KiB", "apply.linger": "800ms"})
	s.give(b, map[string]any{"publish.linger": "900ms", "apply.batch_rows": 1})
	s.start()
	s.inStep()
	// With an answer that takes 150 ms, groups gather while one is on its way.
	s.pair.Links["A-nats"].Delay(75 * time.Millisecond)
	s.pair.Links["B-nats"].Delay(75 * time.Millisecond)
	const rows = 120
	frames := func(r *harness.Region, first int) float64 {
		before := s.number(r, "outbound.frame")
		s.sql(r, fmt.Sprintf(`do $$ begin for i in %d..%d loop insert into t(id,v) select i, string_agg(md5(i::text || g), '') from generate_series(1,20) g; commit; perform pg_sleep(0.015); end loop; end $$`, first, first+rows-1))
		s.inStep()
		return s.number(r, "outbound.frame") - before
	}
	batches := s.metric(b, "pgwaltz_apply_batches_total")
	small := frames(a, 1)
	if n := s.metric(b, "pgwaltz_apply_batches_total") - batches; n < 0.9*small { // a frame stays whole
		s.Errorf("apply.batch_rows 1: %.0f frames in %.0f batches", small, n)
	}
	large := frames(b, 1001)
	if small < 60 || large > small/2 {
		s.Errorf("publish.frame_bytes 1 KiB makes %.0f frames of %d transactions, 256 KiB %.0f", small, rows, large)
	}
	_, err := b.Sidecar.Stop(s.Context(), 30*time.Second)
	s.must(err)
	s.set(b.Sidecar, "publish.linger", "0s")
	s.run(b)
	s.must(s.pair.WaitReady(s.Context(), time.Minute))
	if quick := frames(b, 2001); quick < 2*large {
		s.Errorf("publish.linger 900 ms makes %.0f frames, 0 s %.0f", large, quick)
	}
	s.pair.HealAll()
	s.pair.Links["A-nats"].Delay(0)
	s.pair.Links["B-nats"].Delay(0)
	s.inStep()
	// apply.linger: many rows wait for more before they are committed.
	latency := func(from, to *harness.Region, id int) time.Duration {
		began := time.Now()
		s.sql(from, fmt.Sprintf("insert into t(id) select %d + g from generate_series(0, 299) g", id))
		s.until(to, fmt.Sprintf("select count(*) from t where id = %d", id), "1")
		return time.Since(began)
	}
	if d := latency(b, a, 9001); d < 700*time.Millisecond {
		s.Errorf("apply.linger 800 ms: 300 rows are there after %s", d)
	}
}

// hold: how much WAL stays for a peer that is away.
func hold(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, v text, version bigint default 0, updated_at timestamptz default now())")
	a := s.pair.A
	s.give(a, map[string]any{"publish.wal_hold_max": "8MiB", "publish.hold_margin": "3MiB"})
	s.start()
	s.within("the peer to be heard of", func() (bool, string) {
		known := s.status(a, "outbound.risk_known")
		return known == "true", "risk_known is " + known
	})
	s.pair.Links["link"].Cut()
	s.sql(a, "insert into t(id,v) select g, (select string_agg(md5(g::text||k), '') from generate_series(1,64) k) from generate_series(1,6000) g")
	lag := func() float64 {
		return s.metric(a, "pgwaltz_published_lsn_bytes") - s.metric(a, "pgwaltz_confirmed_lsn_bytes")
	}
	s.within("WAL to be let go", func() (bool, string) {
		d, risk := lag(), s.number(a, "outbound.bytes_at_risk")
		return risk > 1<<20 && d < 6<<20, fmt.Sprintf("%.0f bytes held, %.0f at risk", d, risk)
	})
	if d := lag(); d < 3<<20 {
		s.Errorf("publish.hold_margin 3 MiB: only %.0f bytes are held", d)
	}
}
