package settings

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

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
