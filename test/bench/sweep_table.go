package main

// sweepTable shows how cost follows work.
func (rep *Report) sweepTable() table {
	t := table{title: "Sweep: rows per second, and CPU of the replicator by row and peer, µs: median (min-max)", head: []string{"workload", ""}}
	for _, c := range rep.Contenders {
		t.head = append(t.head, c+" rows/s", c+" CPU")
	}
	for _, w := range rep.measured() {
		if !w.Sweep {
			continue
		}
		row := []string{w.Name, w.What}
		for _, c := range rep.Contenders {
			cost := rep.figures(w.Name, c, func(r Run) float64 {
				sum := 0.0
				for _, v := range r.CPU {
					sum += v
				}
				return sum * 1e6 / float64(max(r.Rows, 1)*max(w.Peers, 1))
			})
			row = append(row, rep.figures(w.Name, c, Run.figure).text("%.0f"), cost.text("%.1f"))
		}
		t.add(row...)
	}
	return t
}
