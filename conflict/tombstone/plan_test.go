package tombstone_test

import (
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

// TestManyEntriesAreHashed: thousands of entries must not be compared in pairs.
func TestManyEntriesAreHashed(t *testing.T) {
	t.Parallel()
	c := database(t)
	pgtest.Exec(t, c, append(applySettings, "set enable_hashjoin = on",
		"prepare w(text[], text[], int8[], int8[], int8[], bool[], text[], bool[], text) as "+tombstone.WriteManySQL)...)
	plan := strings.Join(texts(t, c, "explain (costs off) execute w('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 'a')"), "\n")
	if !strings.Contains(plan, "Hash Left Join") || !strings.Contains(plan, "Index Scan using tombstone_pkey") {
		t.Errorf("the plan is\n%s", plan)
	}
}

// BenchmarkWrite writes 4,000 entries over 4,000.
func BenchmarkWrite(b *testing.B) {
	for _, sql := range []string{tombstone.WriteSQL, tombstone.WriteManySQL} {
		name := "few"
		c := pgtest.Connect(b, server.Database(b))
		settings := append([]string{"create schema pgwaltz", tombstone.Schema, tombstone.PastSchema}, applySettings...)
		if sql == tombstone.WriteManySQL {
			name, settings = "many", append(settings, "set enable_hashjoin = on")
		}
		pgtest.Exec(b, c, settings...)
		b.Run(name, func(b *testing.B) {
			lsn := 1
			for b.Loop() {
				lsn++
				writeMany(b, c, sql, 4000, lsn)
			}
		})
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
	if _, err := c.Exec(b.Context(), sql, rels, keys, zeros, zeros, ats, live, lsns, plain, "a"); err != nil {
		b.Fatal(err)
	}
}
