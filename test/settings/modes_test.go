package settings

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// fallback: the region leaves the stream when its link is cut, and comes back when that is healed.
func fallback(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	a.Sidecar.Set("direction", "publish")
	b.Sidecar.Set("direction", "apply")
	b.Sidecar.Set("peers", []any{map[string]any{"region": "a", "dsn": a.Cluster.DSN(a.Database)}})
	s.set(b.Sidecar, "fallback.to", "pglogical")
	s.cli(b, 3, "check", "has to be prepared while the stream runs")
	for _, r := range s.pair.Regions() {
		s.give(r, map[string]any{"fallback.to": "native", "fallback.after": "2s", "fallback.back_after": "2s"})
	}
	s.must(s.pair.Setup(s.Context()))
	s.run(a, b)
	s.sql(a, "insert into t(id) values (1)")
	s.until(b, "select count(*) from t", "1")
	s.until(a, "select count(*) from pgwaltz.copy where state <> 'done' or applied_at is null", "0")
	const mode = "select coalesce((select mode || settled from pgwaltz.mode), '')"
	for _, l := range s.pair.NatsLinks() {
		l.Cut()
	}
	s.until(b, mode, "nativetrue")
	s.sql(a, "insert into t(id) values (2)")
	s.until(b, "select count(*) from t", "2")
	for _, l := range s.pair.NatsLinks() {
		l.Heal()
	}
	s.until(b, mode, "streamtrue")
	s.until(a, mode, "streamtrue")
	s.sql(a, "insert into t(id) values (3)")
	s.until(b, "select count(*) from t", "3")
}

// modes: who moves the rows, and where the peer's database is for the subscription.
func modes(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	a.Sidecar.Set("direction", "publish")
	b.Sidecar.Set("direction", "apply")
	dsn := a.Cluster.DSN(a.Database)
	reach := func(key, value string) {
		b.Sidecar.Set("peers", []any{map[string]any{"region": "a", key: value}})
	}
	s.must(s.pair.Setup(s.Context()))
	s.set(b.Sidecar, "mode", "native")
	s.cli(b, 3, "check", "mode native needs the peers' databases")
	reach("dsn_file", s.write("dsn", dsn+" application_name=of_the_file"))
	s.cli(b, 0, "mode show", "configured", "native")
	s.cli(b, 0, "mode compare", "equal")
	reach("dsn", a.Cluster.DSN("nowhere"))
	s.cli(b, 6, "mode compare", "nowhere")
	reach("dsn", dsn)
	s.set(b.Sidecar, "mode", "pglogical")
	s.cli(b, 4, "check", "the server does not collect its log")
	s.give(b, map[string]any{"fallback.server_log": s.write("server.log", "")})
	s.cli(b, 4, "check", "!the server does not collect its log", "mode pglogical")
	s.give(a, map[string]any{"mode": "native"})
	s.give(b, map[string]any{"mode": "native"})
	s.run(a, b)
	s.until(b, "select count(*) from pg_subscription where subenabled and subname like 'pgwaltz%'", "1")
	s.sql(a, "insert into t(id) values (1)")
	s.until(b, "select count(*) from t", "1")
	s.within("status to name the mode", func() (bool, string) {
		st, err := b.Sidecar.Status(s.Context())
		return err == nil && st.Mode == "native", fmt.Sprint(err)
	})
	if s.from == file {
		s.proofs.add("peers[].dsn", "peers[].dsn_file")
	}
	for _, r := range s.pair.Regions() {
		_, err := r.Sidecar.Stop(s.Context(), 30*time.Second)
		s.must(err)
	}
	s.cli(b, 0, "mode switch stream", "drop subscription")
}
