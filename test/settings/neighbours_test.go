package settings

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// Two databases of one server, with regions of the same names and names of slots that nobody chose:
// rows cross in each, and stay apart.
func TestTwoDatabasesOnOneServer(t *testing.T) {
	t.Parallel()
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	fleet, err := harness.NewFleet(harness.ClusterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	var both []*scene
	for _, name := range []string{"shop", "bank"} {
		s := &scene{T: t, from: file, fleet: fleet, name: name}
		s.pair, err = fleet.Pair(t.Context(), name, harness.PairOptions{})
		s.must(err)
		t.Cleanup(s.pair.Close)
		for _, r := range s.pair.Regions() {
			r.Sidecar.Set("postgres.slot", nil)
			s.sql(r, "create table t(id int primary key, v text, version bigint not null default 0, updated_at timestamptz not null default now())")
		}
		both = append(both, s)
	}
	for _, s := range both {
		s.start()
	}
	for _, s := range both {
		for _, r := range s.pair.Regions() {
			first := map[string]int{"a": 1, "b": 101}[r.Name]
			s.sql(r, fmt.Sprintf("insert into t(id,v) select g, '%s of %s' from generate_series(%d, %d) g", s.name, r.Name, first, first+49))
		}
	}
	for _, s := range both {
		s.must(s.pair.WaitInStep(t.Context(), 90*time.Second))
		for _, r := range s.pair.Regions() {
			s.want(r, "select string_agg(v || ' ' || n, ', ' order by v) from (select v, count(*) n from t group by 1) x", s.name+" of a 50, "+s.name+" of b 50")
			s.want(r, "select count(*) from pgwaltz.conflict", "0")
		}
	}
	a := both[0].pair.A
	both[0].want(a, "select string_agg(slot_name, ',' order by slot_name) from pg_replication_slots where active", "pgwaltz_bank_a,pgwaltz_shop_a")
	both[0].want(a, "select string_agg(roname, ',' order by roname) from pg_replication_origin", "pgwaltz_bank_b,pgwaltz_shop_b")

	// A slot that belongs to the other database is refused, and nobody is told to drop it.
	shop := both[0].pair.A
	if _, err := shop.Sidecar.Stop(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	shop.Sidecar.Set("postgres.slot", "pgwaltz_bank_a")
	for _, command := range []string{"check", "setup", "run"} {
		res, err := shop.Sidecar.CLI(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		if said := res.Stdout + res.Stderr; res.Code != 4 || !strings.Contains(said, `"bank"`) || strings.Contains(said, "pg_drop_replication_slot") {
			t.Errorf("%s with the slot of another database: code %d\n%s", command, res.Code, said)
		}
	}
}
