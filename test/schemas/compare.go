package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// compare is what must be true in the end.
func (r *trial) compare(ctx context.Context, s *site) error {
	var names []string
	for _, t := range s.catalog.tables {
		if !slices.Contains(s.keyless, t) {
			names = append(names, t.sql)
		}
	}
	errs := []error{s.pair.Equal(ctx, names...)}
	logs := map[string]map[string]harness.Conflict{}
	for _, g := range s.pair.Regions() {
		events, err := g.Conflicts(ctx)
		if err != nil {
			return err
		}
		logs[g.Name] = map[string]harness.Conflict{}
		for _, e := range events {
			logs[g.Name][e.EventID] = e
		}
		errs = append(errs, s.quiet(ctx, g))
	}
	errs = append(errs, onlyThere(logs["a"], logs["b"], "a"), onlyThere(logs["b"], logs["a"], "b"), s.contestedAll(logs["a"]))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.say("%s: %d tables are equal, %d left out (no key), %d conflicts in both logs: %s", s.name, len(names), len(s.keyless), len(logs["a"]), kinds(logs["a"]))
	return nil
}

// quiet asks whether a region has nothing set aside, and says that it is well.
func (s *site) quiet(ctx context.Context, g *harness.Region) error {
	text, err := g.Cluster.PSQL(ctx, g.Database, `
select format('parked: %s.%s %s %s', schema_name, table_name, sqlstate, message) from pgwaltz.parked limit 5;
select format('quarantined: %s', reason) from pgwaltz.quarantine limit 5;
select format('copy of %s.%s: %s %s', schema_name, table_name, state, reason) from pgwaltz.copy where state <> 'done' and reason !~ '^it has no key' limit 5;`)
	if err != nil {
		return err
	}
	if text != "" {
		return fmt.Errorf("region %s has set something aside:\n%s", g.Name, strings.TrimSpace(text))
	}
	res, err := g.Sidecar.CLI(ctx, "status", "--check")
	if err != nil {
		return err
	}
	if res.Code != 0 {
		return fmt.Errorf("status of region %s answers %d: %s", g.Name, res.Code, strings.TrimSpace(res.Stdout+res.Stderr))
	}
	return nil
}

// onlyThere names events that one log has alone.
func onlyThere(log, other map[string]harness.Conflict, region string) error {
	var only []string
	for id, e := range log {
		if _, ok := other[id]; !ok {
			only = append(only, e.String())
		}
	}
	if len(only) == 0 {
		return nil
	}
	slices.Sort(only)
	return fmt.Errorf("%d of %d events are only in the log of region %s: %s", len(only), len(log), region, strings.Join(only[:min(len(only), 5)], "; "))
}

// contestedAll asks whether each table with a key was in a conflict at all: else nothing was tried.
func (s *site) contestedAll(log map[string]harness.Conflict) error {
	met := map[string]bool{}
	for _, e := range log {
		met[strings.ReplaceAll(e.Schema+"."+e.Table, `"`, "")] = true
	}
	var without []string
	for _, t := range s.catalog.tables {
		if len(t.key) > 0 && !met[strings.ReplaceAll(t.sql, `"`, "")] {
			without = append(without, t.sql)
		}
	}
	if len(without) > 0 {
		return fmt.Errorf("no conflict was recorded in %d tables: %s", len(without), strings.Join(without, ", "))
	}
	return nil
}

func kinds(log map[string]harness.Conflict) string {
	count := map[string]int{}
	for _, e := range log {
		count[e.Type]++
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, count[k]))
	}
	return strings.Join(parts, ", ")
}
