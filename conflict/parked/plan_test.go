package parked_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// TestFindingDoesNotReadWhatWaitsForTheTable: with many changes parked for a table, some are found
// by reading about as many pages as with few, also with a plan made while the table was empty.
func TestFindingDoesNotReadWhatWaitsForTheTable(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", parked.Schema)
	for _, ix := range parked.Indexes() {
		pgtest.Exec(t, c, ix[1])
	}
	pgtest.Exec(t, c, "set plan_cache_mode = force_generic_plan", "prepare f(text, text, text[]) as "+parked.FindSQL, "explain execute f('public', 't', '{x}')",
		`insert into pgwaltz.parked (origin, schema_name, table_name, key) select 'b', 'public', 't', '["' || i || '"]' from generate_series(1, 50000) as i`)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf(`["%d"]`, i*100+1)
	}
	rows, err := c.Query(t.Context(), `explain (analyze, buffers, costs off, timing off, summary off) execute f('public', 't', array['`+strings.Join(keys, "','")+`'])`)
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(line + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	hits := regexp.MustCompile(`shared hit=(\d+)`).FindStringSubmatch(plan.String())
	if hits == nil || !strings.Contains(plan.String(), "rows=100 ") {
		t.Fatalf("100 keys are asked for, the plan is\n%s", plan.String())
	}
	if n, _ := strconv.Atoi(hits[1]); n > 1500 {
		t.Errorf("100 changes of 50,000 were found by reading %d pages:\n%s", n, plan.String())
	}
}

// TestHomelessNamesTakeTurns: where more names wait than one question holds, each is asked for some time.
func TestHomelessNamesTakeTurns(t *testing.T) {
	t.Parallel()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", parked.Schema, `create table public.here()`,
		`insert into pgwaltz.parked (origin, schema_name, table_name, key, sqlstate) select 'b', 'public', 'gone' || i % 5, '["' || i || '"]', '42P01' from generate_series(1, 20) as i`,
		`insert into pgwaltz.parked (origin, schema_name, table_name, key, sqlstate) values ('a', 'public', 'own', '["1"]', '42P01'), ('b', 'public', 'here', '["1"]', '42P01'), ('b', 'public', 'other', '["1"]', '22P02')`)
	seen := map[string]bool{}
	for range 100 {
		list, err := parked.Homeless(t.Context(), c, "a", 2)
		if err != nil || len(list) != 2 {
			t.Fatalf("%v, %v", list, err)
		}
		for _, n := range list {
			seen[n.Origin+" "+n.Name.Name] = true
		}
	}
	for i := range 5 {
		if !seen[fmt.Sprint("b gone", i)] {
			t.Errorf("gone%d is never asked for", i)
		}
	}
	if len(seen) != 5 {
		t.Errorf("asked for: %v", seen)
	}
}
