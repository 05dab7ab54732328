package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// check is one question of the oracle.
type check struct {
	name   string
	ask    func(ctx context.Context, w *world) error
	within time.Duration // after both regions are in step it has to hold
}

// verdicts are the answers so far.
type verdicts struct {
	passed, failed int
	failures       []string
}

func (v *verdicts) add(name string, err error) {
	if err == nil {
		v.passed++
		fmt.Printf("ok    %s\n", name)
		return
	}
	v.failed++
	v.failures = append(v.failures, name+": "+err.Error())
	fmt.Printf("FAIL  %s: %v\n", name, err)
}

// checks lists the questions, in the order in which they are asked.
func checks() []check {
	return []check{
		{"tables are equal", checkEqual, moment},
		{"stamps of tables without stamp columns are equal", checkRowStamps, moment},
		{"every acknowledged write is there, was built on, or is in two logs", checkWrites, moment},
		{"each conflict is in two logs", checkLogs, moment},
		{"nothing is parked", checkEmpty("parked"), moment},
		{"nothing is in quarantine", checkEmpty("quarantine"), moment},
		{"side tables are bounded", checkSideTables, trimmed},
		{"memory is bounded", checkMemory, moment},
		{"all sidecars replicate, with a lag below 10 s", checkStatus, moment},
		{"no sidecar panicked", checkPanics, moment},
	}
}

// moment is what tidying may take after both regions are in step: notices that are on their
// way, parked changes whose cause is gone.
const moment = 30 * time.Second

// trimmed is what the side tables may take then: the server moves restart_lsn of a slot some 15 s
// after it was confirmed, and a sidecar trims once a minute at the latest.
const trimmed = 2 * time.Minute

// settle waits until both regions are in step, then until every check passes or the
// moment is over.
func (w *world) settle(ctx context.Context, limit time.Duration) error {
	if err := w.pair.WaitInStep(ctx, limit); err != nil {
		return err
	}
	began := time.Now()
	for _, c := range checks() {
		left := time.Until(began.Add(c.within))
		err := harness.Poll(ctx, max(left, time.Second), time.Second, func(ctx context.Context) (bool, string, error) {
			err := c.ask(ctx, w)
			if err == nil {
				return true, "", nil
			}
			return false, err.Error(), nil
		})
		if err != nil {
			return nil // the check itself reports it
		}
	}
	return nil
}

// askAll asks everything once and notes the answers.
func (w *world) askAll(ctx context.Context, v *verdicts, phase string) {
	for _, c := range checks() {
		v.add(phase+c.name, c.ask(ctx, w))
	}
}

func checkEqual(ctx context.Context, w *world) error { return w.pair.Equal(ctx, w.names()...) }

// number runs a query of one number in a region.
func number(ctx context.Context, s *side, sql string, args ...any) (int64, error) {
	c, err := s.Cluster.Connect(ctx, s.Database)
	if err != nil {
		return 0, fmt.Errorf("ask region %s: %w", s.Side, err)
	}
	defer c.Close(ctx)
	var n int64
	if err := c.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("ask region %s: %w", s.Side, err)
	}
	return n, nil
}

func checkEmpty(name string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		for _, s := range w.sides {
			n, err := number(ctx, s, "select count(*) from pgwaltz."+name)
			if err != nil {
				return err
			}
			if n > 0 {
				return fmt.Errorf("%d rows of pgwaltz.%s in region %s: %s", n, name, s.Side, firstRow(ctx, s, name))
			}
		}
		return nil
	}
}

func firstRow(ctx context.Context, s *side, name string) string {
	c, err := s.Cluster.Connect(ctx, s.Database)
	if err != nil {
		return err.Error()
	}
	defer c.Close(ctx)
	var text string
	if err := c.QueryRow(ctx, "select left(t::text, 300) from pgwaltz."+name+" t limit 1").Scan(&text); err != nil {
		return err.Error()
	}
	return text
}

// checkRowStamps compares what both regions know of live rows beside the tables, where both know
// something.
func checkRowStamps(ctx context.Context, w *world) error {
	got := make([]map[string]string, len(w.sides))
	for i, s := range w.sides {
		var err error
		if got[i], err = pairs(ctx, s, `select relation || ' ' || key, concat_ws('/', generation, updated_at) from pgwaltz.tombstone`); err != nil {
			return err
		}
	}
	have, err := readFinals(ctx, w)
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for at := range have {
		live[fmt.Sprintf(`public.%s ["%d"]`, w.tables[at.table].name, at.key)] = true
	}
	var bad []string
	for i := range got {
		for j := range i {
			for k, a := range got[j] {
				if b, ok := got[i][k]; ok && a != b && live[k] {
					bad = append(bad, fmt.Sprintf("%s: %s in %s, %s in %s", k, a, w.sides[j].Side, b, w.sides[i].Side))
				}
			}
		}
	}
	return some(bad, "stamps differ")
}

// some makes an error of a list of findings, nil of an empty one.
func some(bad []string, what string) error {
	if len(bad) == 0 {
		return nil
	}
	more := ""
	if len(bad) > 5 {
		more = "; …"
	}
	return fmt.Errorf("%d %s: %s%s", len(bad), what, strings.Join(bad[:min(5, len(bad))], "; "), more)
}

func pairs(ctx context.Context, s *side, sql string) (map[string]string, error) {
	c, err := s.Cluster.Connect(ctx, s.Database)
	if err != nil {
		return nil, fmt.Errorf("ask region %s: %w", s.Side, err)
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("ask region %s: %w", s.Side, err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, fmt.Errorf("ask region %s: %w", s.Side, err)
		}
		out[k] = v
	}
	return out, rows.Err()
}

// checkLogs compares the ids of the conflicts: each is in the logs of two regions at least. A
// report of a clock is about one region's clock, so it may be in one log only.
func checkLogs(ctx context.Context, w *world) error {
	got := make([]map[string]string, len(w.sides))
	in, counts := map[string]int{}, ""
	for i, s := range w.sides {
		var err error
		got[i], err = pairs(ctx, s, `select event_id::text, concat_ws(' ', type, verdict, reason, schema_name||'.'||table_name, key::text, 'local', local_row->>'wid', 'remote', remote_row->>'wid', 'origin', origin, region)
from pgwaltz.conflict where type <> 'clock_skew'`)
		if err != nil {
			return err
		}
		counts += fmt.Sprintf(" %d", len(got[i]))
		for id := range got[i] {
			in[id]++
		}
	}
	var bad []string
	for i := range got {
		for id, text := range got[i] {
			if in[id] < 2 {
				bad = append(bad, fmt.Sprintf("only in %s: %s", w.sides[i].Side, text))
			}
		}
	}
	return some(bad, "of"+counts+" conflicts are in one log only")
}

// checkSideTables: apart from the audit log, no table of schema pgwaltz grows with the
// number of writes; tombstones and stamps grow with the number of keys.
func checkSideTables(ctx context.Context, w *world) error {
	keys := int64(0)
	for _, t := range w.tables {
		keys += int64(t.keys)
	}
	for _, s := range w.sides {
		sizes, err := pairs(ctx, s, `select c.relname, (xpath('/row/n/text()', query_to_xml('select count(*) as n from pgwaltz.' || quote_ident(c.relname), false, true, '')))[1]::text
from pg_class c where c.relnamespace = 'pgwaltz'::regnamespace and c.relkind = 'r' and c.relname <> 'conflict'`)
		if err != nil {
			return err
		}
		for name, text := range sizes {
			var n int64
			if _, err := fmt.Sscan(text, &n); err != nil {
				return fmt.Errorf("count rows of pgwaltz.%s: %w", name, err)
			}
			if n > 2*keys+1000 {
				return fmt.Errorf("pgwaltz.%s of region %s holds %d rows for %d keys", name, s.Side, n, keys)
			}
		}
	}
	return nil
}

func checkMemory(_ context.Context, w *world) error {
	for _, s := range w.sides {
		for _, k := range s.keepers() {
			if mib := k.s.NotePeak() >> 20; mib > w.o.maxRSS {
				return fmt.Errorf("a sidecar of region %s took %d MiB, %d are allowed", s.Side, mib, w.o.maxRSS)
			}
		}
	}
	return nil
}

func checkStatus(ctx context.Context, w *world) error {
	for _, s := range w.sides {
		st, err := s.status(ctx)
		if err != nil {
			return err
		}
		if st.State != status.Replicating {
			return fmt.Errorf("region %s is %s: %s", s.Side, st.State, reasons(st))
		}
		for _, p := range st.Outbound.Peers {
			if p.LagSeconds >= 10 {
				return fmt.Errorf("region %s is %.0f s ahead of %s", s.Side, p.LagSeconds, p.Region)
			}
		}
		for _, in := range st.Inbound {
			if in.LagSeconds >= 10 {
				return fmt.Errorf("region %s is %.0f s behind %s", s.Side, in.LagSeconds, in.Origin)
			}
		}
	}
	return nil
}

func reasons(st *status.Status) string {
	var out []string
	if st.Outbound != nil {
		out = append(out, "outbound "+string(st.Outbound.State)+" "+st.Outbound.Reason)
	}
	for _, in := range st.Inbound {
		out = append(out, "inbound "+string(in.State)+" "+in.Reason)
	}
	if st.LastError != nil {
		out = append(out, "last error "+st.LastError.Message)
	}
	return strings.Join(out, ", ")
}

func checkPanics(_ context.Context, w *world) error {
	for _, s := range w.sides {
		for _, k := range s.keepers() {
			line, err := harness.Panicked(k.s.LogPath)
			if err != nil {
				return err
			}
			if line != "" {
				return fmt.Errorf("sidecar of region %s: %s", s.Side, line)
			}
		}
	}
	return nil
}
