package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

type buffer = bytes.Buffer

// table is a heading with rows, for both forms of output.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// measured lists the workloads of which there are runs.
func (rep *Report) measured() []Workload {
	return slices.DeleteFunc(workloads(), func(w Workload) bool {
		return !slices.ContainsFunc(rep.Runs, func(r Run) bool { return r.Workload == w.Name })
	})
}

func (rep *Report) facts() []string {
	m := rep.Machine
	out := []string{
		fmt.Sprintf("commit %s, started %s, took %.0f s", rep.Commit, rep.Started.Format("2006-01-02 15:04 MST"), rep.Took),
		fmt.Sprintf("%d cores (%s), %d MB, kernel %s, %s, PostgreSQL %s, %s", m.Cores, m.CPU, m.MemoryMB, m.Kernel, m.Filesystem, m.PostgreSQL, m.Go),
		fmt.Sprintf("load average of the machine %.2f before the run, %.2f behind it (the run's own load included)", rep.Load[0], rep.Load[1]),
		fmt.Sprintf("scale %g, %d repetitions; shared_buffers %s", rep.Scale, rep.Repetitions, strings.Trim(rep.Settings["shared_buffers"], "'")),
	}
	for _, c := range slices.Sorted(maps.Keys(rep.LeftOut)) {
		out = append(out, c+" left out: "+rep.LeftOut[c])
	}
	for _, k := range slices.Sorted(maps.Keys(rep.Sidecar)) {
		out = append(out, "pgwaltz ran with "+k+" = "+rep.Sidecar[k])
	}
	for _, r := range rep.Runs {
		if r.Error != "" {
			out = append(out, fmt.Sprintf("FAILED: %s %s, repetition %d: %s", r.Workload, r.Contender, r.Repetition, r.Error))
		}
	}
	return out
}

func (rep *Report) tables() []table {
	return slices.DeleteFunc([]table{rep.ratioTable(), rep.rateTable(), rep.bothTable(), rep.latencyTable(), rep.lagTable(), rep.sweepTable(), rep.cpuTable(), rep.accountTable(), rep.memoryTable()},
		func(t table) bool { return len(t.rows) == 0 })
}

func (rep *Report) ratioTable() table {
	t := table{title: "Ratios within one repetition: median (min-max). Above 1 is faster; of W7a to W7h (p50 against p50), below 1",
		head: []string{"workload", "", "target", "pgwaltz / native", "pgwaltz / pglogical", "pglogical / native"}}
	for _, w := range rep.measured() {
		t.add(w.Name, w.What, w.Must, ratio(rep.ratios(w.Name, "pgwaltz", "native")), ratio(rep.ratios(w.Name, "pgwaltz", "pglogical")),
			ratio(rep.ratios(w.Name, "pglogical", "native")))
	}
	return t
}

func ratio(s spread) string {
	if s.N == 0 {
		return "-"
	}
	return s.text("%.2f")
}

// text is the median, with its extremes when there is more than one figure.
func (s spread) text(format string) string {
	switch s.N {
	case 0:
		return "-"
	case 1:
		return fmt.Sprintf(format, s.Median)
	}
	return fmt.Sprintf(format+" ("+format+"-"+format+")", s.Median, s.Min, s.Max)
}

func (rep *Report) rateTable() table {
	names := rep.names()
	t := table{title: "Rows per second (W1: source transactions per second; W8: those of both regions; W9: new orders per minute): median (min-max), n repetitions", head: append([]string{"workload"}, names...)}
	for _, w := range rep.measured() {
		if w.Kind == Latency || w.Kind == Idle {
			continue
		}
		row := []string{w.Name}
		for _, c := range names {
			s := rep.figures(w.Name, c, Run.figure)
			cell := "-"
			switch {
			case s.N > 1:
				cell = fmt.Sprintf("%s (%s-%s) n=%d", thousands(s.Median), thousands(s.Min), thousands(s.Max), s.N)
			case s.N == 1:
				cell = thousands(s.Median)
			}
			row = append(row, cell)
		}
		t.add(row...)
	}
	return t
}

func (rep *Report) names() []string {
	names := slices.Clone(rep.Contenders)
	if slices.ContainsFunc(rep.Runs, func(r Run) bool { return r.Contender == "none" }) {
		names = append([]string{"none"}, names...)
	}
	return names
}

func thousands(v float64) string {
	if v < 10_000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1fk", v/1000)
}

// cpuTable is the account per stage. CPU is the steadiest figure on a noisy machine.
func (rep *Report) cpuTable() table {
	classes := []string{ClassWalsender, "sidecar publish", "sidecar apply", ClassApply, ClassTargetWriter, ClassSourceOther, ClassTargetOther}
	t := table{title: "CPU seconds per million rows by stage: median (min-max); foreign is what the rest of the machine used meanwhile (W1, W7: the load too)",
		head: append(append([]string{"workload", "contender"}, classes...), "sum", "foreign")}
	for _, w := range rep.measured() {
		if w.Kind == Beside || w.Kind == Idle || w.Kind == Mutual {
			continue // accountTable has it
		}
		for _, c := range rep.Contenders {
			row, any := []string{w.Name, c}, false
			per := func(r Run, seconds float64) float64 {
				return seconds * 1e6 / float64(max(r.Rows, 1))
			}
			cell := func(of func(Run) float64) string {
				s := rep.figures(w.Name, c, of)
				if s.N == 0 {
					return ""
				}
				any = true
				return s.text("%.1f")
			}
			for _, class := range classes {
				row = append(row, cell(func(r Run) float64 { return per(r, r.CPU[class]) }))
			}
			row = append(row, cell(func(r Run) float64 {
				sum := 0.0
				for _, v := range r.CPU {
					sum += v
				}
				return per(r, sum)
			}), cell(func(r Run) float64 { return per(r, r.Foreign) }))
			if any {
				t.add(row...)
			}
		}
	}
	return t
}

func (rep *Report) memoryTable() table {
	t := table{title: "Peak resident memory of a sidecar with its NATS server, MiB, highest of the repetitions (the bound is 256)", head: []string{"workload", "publish", "apply"}}
	for _, w := range rep.measured() {
		var peak [2]int64
		for _, r := range rep.of(w.Name, "pgwaltz") {
			peak[0], peak[1] = max(peak[0], r.PeakRSS["publish"]), max(peak[1], r.PeakRSS["apply"])
		}
		if peak[0]+peak[1] > 0 {
			t.add(w.Name, fmt.Sprint(peak[0]>>20), fmt.Sprint(peak[1]>>20))
		}
	}
	return t
}

// text prints the report for a terminal.
func (rep *Report) text(w io.Writer) {
	for _, f := range rep.facts() {
		fmt.Fprintln(w, f)
	}
	for _, t := range rep.tables() {
		fmt.Fprintf(w, "\n%s\n", t.title)
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, row := range append([][]string{t.head}, t.rows...) {
			fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
		}
		_ = tw.Flush() // w's own errors show where it is used
	}
}

// markdown prints the report for docs/benchmarks.md.
func (rep *Report) markdown(w io.Writer) {
	for _, f := range rep.facts() {
		fmt.Fprintln(w, "- "+f)
	}
	for _, t := range rep.tables() {
		fmt.Fprintf(w, "\n%s:\n\n| %s |\n|%s\n", t.title, strings.Join(t.head, " | "), strings.Repeat(" --- |", len(t.head)))
		for _, row := range t.rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		}
	}
}
