package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// logged is what the audit logs of two regions, at least, say of one key or one write.
type logged struct {
	losers map[int64]bool     // ids that two logs name as the loser
	wins   map[string][]int64 // table/key -> ids that two logs name as winner over a delete
}

// finals is the id in each final row: table index and key -> ids (several without a key).
type finals map[spot][]int64

type spot struct {
	table uint8
	key   int32
}

// checkWrites asks for every write that a writer noted what became of it.
func checkWrites(ctx context.Context, w *world) error {
	have, err := readFinals(ctx, w)
	if err != nil {
		return err
	}
	log, err := readLogs(ctx, w)
	if err != nil {
		return err
	}
	return some(explain(w.tables, w.j.all(), have, log), "writes without explanation")
}

// readFinals reads region A; that the others are equal is another check's question.
func readFinals(ctx context.Context, w *world) (finals, error) {
	c, err := w.sides[0].Cluster.Connect(ctx, w.sides[0].Database)
	if err != nil {
		return nil, fmt.Errorf("read final rows: %w", err)
	}
	defer c.Close(ctx)
	out := finals{}
	for _, t := range w.tables {
		rows, err := c.Query(ctx, "select k::int, wid from "+t.name)
		if err != nil {
			return nil, fmt.Errorf("read final rows: %w", err)
		}
		var k int32
		var id int64
		if _, err := pgx.ForEachRow(rows, []any{&k, &id}, func() error {
			at := spot{uint8(t.index), k}
			out[at] = append(out[at], id)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("read final rows: %w", err)
		}
	}
	return out, nil
}

func readLogs(ctx context.Context, w *world) (logged, error) {
	losers, wins := map[int64]int{}, map[string]int{} // how many logs name it
	for _, s := range w.sides {
		lostHere, wonHere := map[int64]bool{}, map[string]bool{}
		c, err := s.Cluster.Connect(ctx, s.Database)
		if err != nil {
			return logged{}, fmt.Errorf("read audit log: %w", err)
		}
		// The side that lost: what was here when the change was applied, else the change.
		rows, err := c.Query(ctx, `select type, table_name, coalesce(key->>'k', ''),
coalesce((case verdict when 'apply' then local_row else remote_row end)->>'wid', ''),
coalesce((case verdict when 'apply' then remote_row else local_row end)->>'wid', '') from pgwaltz.conflict where verdict in ('apply', 'keep')`)
		if err == nil {
			var typ, table, key, lost, won string
			_, err = pgx.ForEachRow(rows, []any{&typ, &table, &key, &lost, &won}, func() error {
				if id, err := strconv.ParseInt(lost, 10, 64); err == nil {
					lostHere[id] = true
				}
				if won != "" && (typ == "delete_origin_differs" || typ == "update_deleted") {
					wonHere[table+"/"+trimKey(key)+"/"+won] = true
				}
				return nil
			})
		}
		_ = c.Close(ctx)
		if err != nil {
			return logged{}, fmt.Errorf("read audit log: %w", err)
		}
		for id := range lostHere {
			losers[id]++
		}
		for k := range wonHere {
			wins[k]++
		}
	}
	out := logged{losers: map[int64]bool{}, wins: map[string][]int64{}}
	for id, n := range losers {
		if n > 1 {
			out.losers[id] = true
		}
	}
	for k, n := range wins {
		if n < 2 {
			continue
		}
		at := strings.LastIndexByte(k, '/')
		id, err := strconv.ParseInt(k[at+1:], 10, 64)
		if err == nil {
			out.wins[k[:at]] = append(out.wins[k[:at]], id)
		}
	}
	return out, nil
}

// trimKey brings the spellings of a numeric key into one form.
func trimKey(k string) string {
	whole, _, _ := strings.Cut(k, ".")
	return whole
}

// explain is the oracle's rule; it returns what it cannot explain. It is pure but for the
// order of ws, which it sorts by id.
func explain(tables []*table, ws []write, have finals, log logged) []string {
	slices.SortFunc(ws, func(a, b write) int { return cmp.Compare(a.id, b.id) })
	byID := make(map[int64]*write, len(ws))
	for i := range ws {
		byID[ws[i].id] = &ws[i]
	}
	explained := make(map[int64]bool, len(ws))
	up := func(id int64) { // what this one was built on is explained with it
		for id != 0 && !explained[id] {
			explained[id] = true
			x := byID[id]
			if x == nil {
				return
			}
			id = x.base
		}
	}
	var bad []string
	for at, ids := range have {
		for _, id := range ids {
			x := byID[id]
			switch {
			case x == nil:
				bad = append(bad, fmt.Sprintf("%s key %d: nobody wrote the row with id %d", tables[at.table].name, at.key, id))
			case x.out == refused:
				bad = append(bad, fmt.Sprintf("%s: a write that was refused is there", x.describe(tables)))
			case spot{x.table, x.key} != at:
				bad = append(bad, fmt.Sprintf("%s: it is at key %d of %s", x.describe(tables), at.key, tables[at.table].name))
			}
			up(id)
		}
	}
	for id := range log.losers {
		if x := byID[id]; x != nil && x.out == refused {
			bad = append(bad, fmt.Sprintf("%s: a write that was refused is in the logs", x.describe(tables)))
		}
		up(id)
	}
	next := map[int64][]int64{}
	for i := range ws {
		x := &ws[i]
		if x.out == refused || x.base == 0 {
			continue
		}
		if x.op == opDelete {
			up(x.base)
		} else {
			next[x.base] = append(next[x.base], x.id)
		}
	}
	for i := range ws {
		x := &ws[i]
		if x.out != acked || !tables[x.table].full {
			continue // identity DEFAULT does not say what a write overwrote
		}
		if x.op != opDelete {
			if !explained[x.id] {
				bad = append(bad, x.describe(tables)+": lost")
			}
			continue
		}
		// It may have lost as a part of what its region built on it.
		if y := undone(x, next, have, log, tables); y != 0 && !rebuilt(x, ws, explained) {
			bad = append(bad, fmt.Sprintf("%s: undone, the row has id %d", x.describe(tables), y))
		}
	}
	return bad
}

// rebuilt says whether the region that deleted a row inserted the key again later, and what
// became of that row is known: its delete went the same way.
func rebuilt(x *write, ws []write, explained map[int64]bool) bool {
	for i := range ws {
		y := &ws[i]
		if y.op == opInsert && y.table == x.table && y.key == x.key && y.side == x.side && y.id > x.id && y.out == acked {
			return explained[y.id]
		}
	}
	return false
}

// undone says whether the row that a delete removed, or one that was built on it, is there
// without a word in both logs. It returns that row's id, or 0.
func undone(x *write, next map[int64][]int64, have finals, log logged, tables []*table) int64 {
	after := map[int64]bool{}
	var walk func(id int64)
	walk = func(id int64) {
		if !after[id] {
			after[id] = true
			for _, n := range next[id] {
				walk(n)
			}
		}
	}
	walk(x.base)
	for _, id := range log.wins[fmt.Sprintf("%s/%d", tables[x.table].name, x.key)] {
		if after[id] {
			return 0
		}
	}
	for _, id := range have[spot{x.table, x.key}] {
		if after[id] {
			return id
		}
	}
	return 0
}

func (x *write) describe(tables []*table) string {
	return fmt.Sprintf("write %d of region %c (%c, key %d of %s, over %d)", x.id, 'A'+x.side, x.op, x.key, tables[x.table].name, x.base)
}
