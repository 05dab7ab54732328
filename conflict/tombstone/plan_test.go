package tombstone_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// applySettings are those of an apply session that plans depend on.
var applySettings = []string{"set enable_seqscan = off", "set enable_hashjoin = off", "set enable_mergejoin = off", "set plan_cache_mode = force_generic_plan"}

// TestEntriesAreLookedUpByIndex: plans are made when the table may be empty and not known to
// ANALYZE, and kept. They must not read more of it than the keys in question, nor compare entries in
// pairs.
func TestEntriesAreLookedUpByIndex(t *testing.T) {
	t.Parallel()
	c := database(t)
	pgtest.Exec(t, c, append(applySettings,
		"prepare w(text[], text[], int8[], int8[], int8[], bool[], text[], bool[], text, text[]) as "+tombstone.WriteSQL,
		"prepare f(text, text[]) as "+tombstone.FindSQL)...)
	for what, run := range map[string]string{"write": "w('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 'a', '{}')", "find": "f('r', '{}')"} {
		plan := strings.Join(texts(t, c, "explain (costs off) execute "+run), "\n")
		scans := len(regexp.MustCompile(`Index Scan (Backward )?using`).FindAllString(plan, -1))
		byKey := len(regexp.MustCompile(`Index Cond: \(\(relation = .*\) AND \(key = `).FindAllString(plan, -1))
		if scans == 0 || byKey != scans || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Join Filter") {
			t.Errorf("the plan of %s is\n%s", what, plan)
		}
	}
}

// TestFindingDoesNotReadTheWholeRelation: with many entries of a relation, some are found by
// about as many pages as in a small one.
func TestFindingDoesNotReadTheWholeRelation(t *testing.T) {
	t.Parallel()
	c := database(t)
	pgtest.Exec(t, c, append(applySettings, "prepare f(text, text[]) as "+tombstone.FindSQL, "explain execute f('r', '{x}')", // planned while it is empty
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn)
select 'r', '["' || i || '"]', 0, 0, 0, true, 'a', '0/1' from generate_series(1, 50000) as i`)...)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = `'["` + strconv.Itoa(i*100+1) + `"]'`
	}
	plan := texts(t, c, `explain (analyze, buffers, costs off, timing off, summary off) execute f('r', array[`+strings.Join(keys, ",")+`])`)
	hits := regexp.MustCompile(`shared hit=(\d+)`).FindStringSubmatch(strings.Join(plan, "\n"))
	if n, _ := strconv.Atoi(hits[1]); n == 0 || n > 1500 {
		t.Errorf("100 entries of 50,000 were found by reading %d pages:\n%s", n, strings.Join(plan, "\n"))
	}
}

// BenchmarkWrite writes 4,000 entries over 4,000.
func BenchmarkWrite(b *testing.B) {
	c := pgtest.Connect(b, server.Database(b))
	pgtest.Exec(b, c, append([]string{"create schema pgwaltz", tombstone.Schema, tombstone.PastSchema}, applySettings...)...)
	lsn := 1
	for b.Loop() {
		lsn++
		writeMany(b, c, tombstone.WriteSQL, 4000, lsn)
	}
}

func writeMany(b *testing.B, c *pgx.Conn, sql string, n, lsn int) {
	b.Helper()
	var rels, keys, lsns []string
	var zeros, ats []int64
	var live, plain []bool
	for i := range n {
		rels, keys, lsns = append(rels, tombstone.RelationText(users)), append(keys, `["`+strconv.Itoa(i)+`"]`), append(lsns, "0/"+strconv.FormatInt(int64(lsn), 16))
		zeros, ats = append(zeros, 0), append(ats, time.Now().UnixMicro())
		live, plain = append(live, true), append(plain, false)
	}
	if _, err := c.Exec(b.Context(), sql, rels, keys, zeros, zeros, ats, live, lsns, plain, "a", nil); err != nil {
		b.Fatal(err)
	}
}
