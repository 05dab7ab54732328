package main

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	tables := []*table{{name: "full", full: true}, {name: "default", index: 1}}
	w := func(id, base int64, o op, out outcome) write {
		return write{id: id, base: base, key: 1, op: o, out: out}
	}
	at := spot{0, 1}
	none := logged{}
	for name, c := range map[string]struct {
		ws   []write
		have finals
		log  logged
		want []string // parts of the findings, in order; none for none
	}{
		"a chain that ends in the row": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, acked), w(3, 2, opUpdate, acked)}, have: finals{at: {3}}, log: none,
		},
		"the end of the chain is lost": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, acked)}, have: finals{at: {1}}, log: none, want: []string{"write 2 "},
		},
		"a lost branch is in both logs, and speaks for what it was built on": {
			ws:   []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, acked), w(3, 2, opUpdate, acked), w(4, 1, opUpdate, acked)},
			have: finals{at: {4}}, log: logged{losers: map[int64]bool{3: true}},
		},
		"a lost branch that no log knows": {
			ws:   []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, acked), w(4, 1, opUpdate, acked)},
			have: finals{at: {4}}, log: none, want: []string{"write 2 "},
		},
		"deleted knowingly": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, acked)}, have: finals{}, log: none,
		},
		"deleted, perhaps": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, unknown)}, have: finals{at: {1}}, log: none,
		},
		"a delete is undone": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, acked)}, have: finals{at: {1}}, log: none, want: []string{"undone, the row has id 1"},
		},
		"a delete lost against an update, without a word": {
			ws:   []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, acked), w(3, 1, opUpdate, acked)},
			have: finals{at: {3}}, log: none, want: []string{"undone, the row has id 3"},
		},
		"a delete lost against an update, and both logs say so": {
			ws:   []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, acked), w(3, 1, opUpdate, acked)},
			have: finals{at: {3}}, log: logged{wins: map[string][]int64{"full/1": {3}}},
		},
		"a delete lost together with the row that was inserted over it": {
			ws:   []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, acked), w(3, 1, opDelete, acked), w(4, 0, opInsert, acked)},
			have: finals{at: {2}}, log: logged{losers: map[int64]bool{4: true}},
		},
		"a new row after a delete": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opDelete, acked), w(3, 0, opInsert, acked)}, have: finals{at: {3}}, log: none,
		},
		"an unknown write may be missing": {
			ws: []write{w(1, 0, opInsert, acked), w(2, 1, opUpdate, unknown)}, have: finals{at: {1}}, log: none,
		},
		"a refused write is there": {
			ws: []write{w(1, 0, opInsert, refused)}, have: finals{at: {1}}, log: none, want: []string{"a write that was refused is there"},
		},
		"a refused write is in the logs": {
			ws: []write{w(1, 0, opInsert, refused)}, have: finals{}, log: logged{losers: map[int64]bool{1: true}}, want: []string{"a write that was refused is in the logs"},
		},
		"a row that nobody wrote": {
			have: finals{at: {9}}, log: none, want: []string{"nobody wrote the row with id 9"},
		},
		"a row at another key": {
			ws: []write{w(1, 0, opInsert, acked)}, have: finals{spot{0, 2}: {1}}, log: none, want: []string{"it is at key 2 of full"},
		},
		"identity DEFAULT promises no record": {
			ws:   []write{{id: 1, key: 1, table: 1, op: opInsert, out: acked}, {id: 2, base: 1, key: 1, table: 1, op: opUpdate, out: acked}},
			have: finals{spot{1, 1}: {1}}, log: none,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explain(tables, c.ws, c.have, c.log)
			if len(got) != len(c.want) {
				t.Fatalf("findings %q, want %d", got, len(c.want))
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("finding %q, want it to hold %q", got[i], c.want[i])
				}
			}
		})
	}
}

// TestPlanComesFromTheSeed: the same seed draws the same faults.
func TestPlanComesFromTheSeed(t *testing.T) {
	t.Parallel()
	a, b, c := drawPlan(5, 50), drawPlan(5, 50), drawPlan(6, 50)
	if a != b {
		t.Error("one seed drew two plans")
	}
	if a == c {
		t.Error("two seeds drew one plan")
	}
}

func drawPlan(seed uint64, n int) string {
	var out strings.Builder
	rnd := planRand(seed)
	for range n {
		p := drawPlanned(rnd, faultKinds(), 2, 1e9)
		out.WriteString(p.f.name + p.after.String() + p.draw.length.String())
	}
	return out.String()
}

func TestTableKinds(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-tables", "^child$", "-duration", "5s"})
	if err != nil {
		t.Fatal(err)
	}
	got := chooseTables(o.tables, 3, 0)
	if len(got) != 2 || got[0].name != "parent" || got[0].child != got[1] {
		t.Errorf("a child brings its parent: %v", got)
	}
	if sql := schemaSQL(got); !strings.Contains(sql, "references parent on delete cascade") {
		t.Errorf("the child refers to its parent: %s", sql)
	}
}
