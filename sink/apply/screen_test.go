package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestRulesAreLookedUpByIndex: whether rows that wait have a neighbour in the way is not found out by reading the whole table for each, whatever the index is over.
func TestRulesAreLookedUpByIndex(t *testing.T) {
	t.Parallel()
	b := newBench(t, `create domain word as varchar(20);
create table u (id int primary key, a int, v varchar(20), n name, c text collate "C", d word, r int4range, e numeric(10,2), f varchar(9)[], h char(8), gone date,
	unique (a), unique (v), unique (n), unique (c), unique (d), unique (e), unique (f), unique (h), exclude using gist (r with &&));
create unique index on u (lower(c)); create unique index on u (v, lower(d)) where gone is null; create unique index on u ((a + 1) desc, c text_pattern_ops);
insert into u select i, i, 'x' || i, 'x' || i, 'x' || i, 'x' || i, int4range(i, i+1), i, array['x' || i], 'x' || i from generate_series(1, 10000) i; analyze u`)
	r := b.retrier()
	if _, err := r.a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	rules, err := r.rules(t.Context(), "public.u")
	if err != nil || len(rules) != 13 {
		t.Fatalf("%d rules, %v", len(rules), err)
	}
	table, err := loadSchema(t.Context(), r.a.conn, wal.RelationName{Schema: "public", Name: "u"}, true)
	if err != nil {
		t.Fatal(err)
	}
	s := statement.Shape{Table: "public.u", Only: true, Key: []statement.Param{table.key.Columns[0].Param}}
	for _, x := range rules {
		columns, ok := table.typed(x.needs, s.Key)
		if !ok {
			t.Fatal(x)
		}
		for i := range 4 {
			if x.Nulls = i > 1; x.Nulls && strings.HasSuffix(x.Terms[0].Operator, ".&&") {
				continue
			}
			args := []any{make([]int64, 5)}
			for range columns {
				args = append(args, make([]*string, 5))
			}
			rows, err := b.conn.Query(t.Context(), "explain (costs off) "+statement.Taken(s, x.Constraint, columns, i%2 == 1), args...)
			if err != nil {
				t.Fatal(err)
			}
			var plan []string
			for rows.Next() {
				var line string
				if err := rows.Scan(&line); err != nil {
					t.Fatal(err)
				}
				plan = append(plan, line)
			}
			if rows.Err() != nil {
				t.Fatal(rows.Err())
			}
			if all := strings.Join(plan, "\n"); !strings.Contains(all, "Index Cond") || strings.Contains(all, "Seq Scan") {
				t.Error(fmt.Sprint(x.Terms, " ", x.Where, " ", i, "\n", all))
			}
		}
	}
}
