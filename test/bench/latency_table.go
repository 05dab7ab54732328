package main

import "fmt"

// latencyTable is W7 at each rate, and beside each latency what it cost.
func (rep *Report) latencyTable() table {
	t := table{title: "Latency, ms from the commit at the source to the row at the target, and CPU of the replicator by transaction, µs: median (min-max) of the repetitions",
		head: []string{"workload", "", "contender", "transactions/s", "p50", "p95", "p99", "max", "CPU", "ruler's CPU", "probes"}}
	for _, w := range rep.measured() {
		if w.Kind != Latency {
			continue
		}
		for _, c := range rep.names() {
			get := func(of func(Run) float64) spread { return rep.figures(w.Name, c, of) }
			n := get(func(r Run) float64 { return float64(r.Latency.Probes) })
			if n.N == 0 {
				continue
			}
			ms := func(of func(*Latencies) float64) string {
				return get(func(r Run) float64 { return of(r.Latency) }).text("%.2f")
			}
			t.add(w.Name, w.What, c, get(func(r Run) float64 { return r.units() / r.Seconds }).text("%.0f"),
				ms(func(l *Latencies) float64 { return l.P50 }), ms(func(l *Latencies) float64 { return l.P95 }),
				ms(func(l *Latencies) float64 { return l.P99 }), ms(func(l *Latencies) float64 { return l.Max }),
				get(func(r Run) float64 { return r.cost(replicator) }).text("%.0f"),
				get(func(r Run) float64 { return r.cost(func(who string) bool { return who == ruler }) }).text("%.0f"), fmt.Sprintf("%.0f", n.Median))
		}
	}
	return t
}

// rate is the transactions per second of a workload of this kind, those of the prober included.
func (rep *Report) rate(w Workload) int {
	if w.Name == "W7" && rep.Rate > 0 {
		return rep.Rate
	}
	return w.Rate
}

// lagTable is how long after the end of the load of W1 everything had arrived.
func (rep *Report) lagTable() table {
	t := table{title: "Lag at the end of the load of W1, seconds: median (min-max)", head: []string{"contender", "seconds"}}
	for _, c := range rep.Contenders {
		if s := rep.figures("W1", c, func(r Run) float64 { return r.Lag }); s.N > 0 {
			t.add(c, s.text("%.3f"))
		}
	}
	return t
}

// cost is the microseconds of CPU by transaction that some of the processes used.
func (r Run) cost(of func(who string) bool) float64 {
	if r.Account == nil {
		return 0
	}
	sum := 0.0
	for _, s := range r.Account.Shares {
		if of(s.Who) {
			sum += s.CPU
		}
	}
	return sum * 1e6 / max(r.units(), 1)
}
