package demo

import (
	"context"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// oneDatabase is both regions on one database: replication without delay or conflict.
func oneDatabase(t *testing.T) [2]*region {
	t.Helper()
	c := pgtest.New(t).Cluster(t)
	eu := &region{name: "eu", peer: "us", dir: t.TempDir(), cluster: c, people: &people{}, http: "127.0.0.1:1"}
	if err := eu.createDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eu.pool.Close)
	us := *eu
	us.name, us.peer, us.people = "us", "eu", &people{}
	return [2]*region{eu, &us}
}

// TestWorkloadIsExplained runs both regions' writes against one database. There the ledger
// must explain every write without an audit log, whatever the workers did at once: that is
// what makes a lost write of the real demo a finding.
func TestWorkloadIsExplained(t *testing.T) {
	t.Parallel()
	regions := oneDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	l := newLedger()
	w := newWorkload(regions, l, 400, 7)
	if err := w.run(ctx); err != nil {
		t.Fatal(err)
	}
	final, err := regions[0].finalWrites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := l.check(final, nil)
	if len(v.Lost) > 0 || len(v.Invented) > 0 || v.Explained < 200 {
		t.Fatalf("%+v", v)
	}
	c := w.snapshot()
	if c.Writes[0] < 200 || c.Writes[1] < 200 || len(c.Conflicts) != 4 {
		t.Fatalf("%+v", c)
	}
	for code := range c.Refused {
		// The same key inserted twice is refused here; a child may race with its user's delete.
		if code != "23505" && code != "23503" && code != "40P01" {
			t.Errorf("refused with %s: %d", code, c.Refused[code])
		}
	}
	for i := range regions {
		if n, err := regions[i].orphans(t.Context()); err != nil || n != 0 {
			t.Errorf("orphans %d, error %v", n, err)
		}
	}
	results, err := compare(t.Context(), regions)
	if err != nil || !allEqual(results) {
		t.Fatalf("%+v, error %v", results, err)
	}
	for _, r := range results {
		if r.Rows["eu"] == 0 {
			t.Errorf("table %s is empty", r.Table)
		}
	}
	before := results[0].Hash["eu"]
	if _, err := regions[0].pool.Exec(t.Context(), `UPDATE users SET level = level + 1 WHERE uuid = (SELECT min(uuid::text)::uuid FROM users)`); err != nil {
		t.Fatal(err)
	}
	if results, err = compare(t.Context(), regions); err != nil || results[0].Hash["eu"] == before {
		t.Fatalf("the hash does not see a changed row, error %v", err)
	}
}

func TestWrittenConfigIsAccepted(t *testing.T) {
	t.Parallel()
	regions := oneDatabase(t)
	for _, c := range []struct{ listen, dial string }{{"127.0.0.1:7422", ""}, {"", "127.0.0.1:7423"}} {
		path, err := regions[0].writeConfig(c.listen, c.dial)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if loaded.Region != "eu" || loaded.NATS.Listen != c.listen || len(loaded.Audit.Redact) != 1 {
			t.Errorf("%+v", loaded)
		}
	}
}
