package main

import (
	"cmp"
	"fmt"
)

// bothTable is W8: what each region kept, and at which price.
func (rep *Report) bothTable() table {
	t := table{title: "Both regions write (W8): transactions/s kept, milliseconds each way during the load, CPU of the replicator by transaction, µs, and what is left of equality: median (min-max)",
		head: []string{"contender", "left/s", "right/s", "kept of none", "lag s", "p50 left to right", "p99", "p50 right to left", "p99", "CPU", "deadlocks of the application", "rows that differ", "conflicts in the audit log"}}
	for _, c := range rep.names() {
		runs := rep.of("W8", c)
		if len(runs) == 0 {
			continue
		}
		get := func(of func(*Both) float64) string {
			var v []float64
			for _, r := range runs {
				v = append(v, of(r.Both))
			}
			return spreadOf(v).text("%.4g")
		}
		ms := func(way int, of func(*Latencies) float64) string {
			s := rep.figures("W8", c, func(r Run) float64 {
				if r.Both.Latency[way] == nil {
					return 0
				}
				return of(r.Both.Latency[way])
			})
			return s.text("%.1f")
		}
		p50, p99 := func(l *Latencies) float64 { return l.P50 }, func(l *Latencies) float64 { return l.P99 }
		row := []string{c, get(func(r *Both) float64 { return r.TPS[0] }), get(func(r *Both) float64 { return r.TPS[1] }), ratio(rep.ratios("W8", c, "none"))}
		if c == "none" {
			t.add(append(row, "-", "-", "-", "-", "-", "-", get(func(r *Both) float64 { return float64(r.Failed[0] + r.Failed[1]) }), "-", "-")...)
			continue
		}
		stopped := ""
		for _, r := range runs {
			stopped = cmp.Or(stopped, r.Both.Stopped)
		}
		if stopped != "" {
			stopped = fmt.Sprintf("; stopped: %s", stopped)
		}
		audit := "-"
		if ours(c) {
			audit = get(func(r *Both) float64 { return float64(r.Conflicts) })
		}
		t.add(append(row, get(func(r *Both) float64 { return max(r.Lag[0], r.Lag[1]) }), ms(0, p50), ms(0, p99), ms(1, p50), ms(1, p99),
			rep.figures("W8", c, func(r Run) float64 { return r.cost(replicator) }).text("%.0f"),
			get(func(r *Both) float64 { return float64(r.Failed[0] + r.Failed[1]) }),
			get(func(r *Both) float64 { return float64(r.Differ) })+stopped, audit)...)
	}
	return t
}
