package settings

import (
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// refusals: what is not allowed unless a key says so.
func refusals(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a := s.pair.A
	s.must(a.Sidecar.Setup(s.Context()))
	s.set(a.Sidecar, "nats.listen", "0.0.0.0:0")
	s.cli(a, 3, "check", "there is no TLS")
	s.give(a, map[string]any{"nats.insecure": true})
	s.cli(a, 0, "check", "0.0.0.0:0 can be listened on")
}

func contains(text, part string) bool { return strings.Contains(text, part) }
