package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// caption says where a plot comes from, in two lines.
func (rep *Report) caption() [2]string {
	m := rep.Machine
	figures := fmt.Sprintf("median and extremes of %d repetitions", rep.Repetitions)
	if rep.Repetitions == 1 {
		figures = "one repetition"
	}
	version, _, _ := strings.Cut(m.PostgreSQL, " ")
	return [2]string{
		fmt.Sprintf("%s, %d cores, %d MB, PostgreSQL %s, commit %s, %s", m.CPU, m.Cores, m.MemoryMB, version, rep.Commit, rep.Started.Format("2006-01-02")),
		fmt.Sprintf("scale %g, %s, load average %.3g before and %.3g behind", rep.Scale, figures, rep.Load[0], rep.Load[1]),
	}
}

// throughputPlot is the ratio to native of each workload: medians as bars, extremes as lines.
func (rep *Report) throughputPlot() string {
	type row struct {
		name string
		bars map[string]spread
	}
	var rows []row
	most := 1.5
	rivals := slices.DeleteFunc(slices.Clone(rep.Contenders), func(c string) bool { return c == "native" })
	for _, w := range rep.measured() {
		if w.Kind == Latency || w.Kind == Idle {
			continue
		}
		r := row{w.Name + " " + w.What, map[string]spread{}}
		for _, c := range rivals {
			if s := rep.ratios(w.Name, c, "native"); s.N > 0 {
				r.bars[c], most = s, max(most, s.Max)
			}
		}
		if len(r.bars) > 0 {
			rows = append(rows, r)
		}
	}
	const left, bar, width = 350, 12, 900.0
	step := float64(len(rivals)*bar + 14)
	bottom := 50 + step*float64(len(rows))
	s := newSVG(width, bottom+76)
	at := func(v float64) float64 { return left + v/most*(width-left-30) }
	s.text(10, 20, "start", "Throughput, or transactions that the source keeps: ratio to a native subscription in the same repetition")
	for v := 0.0; v <= most; v += 0.25 {
		s.line(at(v), 40, at(v), bottom, gray, "2 3")
		s.text(at(v), bottom+15, "middle", strconv.FormatFloat(v, 'g', -1, 64))
	}
	s.line(at(1), 40, at(1), bottom, black, "")
	for i, r := range rows {
		y := 50 + step*float64(i)
		s.text(left-8, y+float64(len(rivals)*bar)/2+4, "end", r.name)
		for k, c := range rivals {
			v, ok := r.bars[c]
			if !ok {
				continue
			}
			top := y + float64(k*bar)
			s.rect(left, top, at(v.Median)-left, bar-2, colors[c])
			s.line(at(v.Min), top+bar/2-1, at(v.Max), top+bar/2-1, black, "")
		}
	}
	rep.legend(s, rivals, bottom+35)
	return s.String()
}

// latencyPlot is p50 and p99 of each contender at each rate, on a logarithmic scale.
func (rep *Report) latencyPlot() string {
	var loads []Workload
	for _, w := range rep.measured() {
		if w.Kind == Latency {
			loads = append(loads, w)
		}
	}
	const left, top, width, bottom = 70, 40, 900.0, 400.0
	low, high := 0.1, 10.0
	for _, w := range loads {
		for _, c := range rep.Contenders {
			if v := rep.figures(w.Name, c, func(r Run) float64 { return r.Latency.P99 }); v.N > 0 {
				high = max(high, math.Pow(10, math.Ceil(math.Log10(v.Max))))
			}
		}
	}
	s := newSVG(width, bottom+90)
	at := func(ms float64) float64 {
		return bottom - (bottom-top)*math.Log10(max(ms, low)/low)/math.Log10(high/low)
	}
	s.text(10, 20, "start", "Milliseconds from the commit at the source to the row at the target: p50 (dots), p99 (rings)")
	for v := low; v <= high*1.001; v *= 10 {
		s.line(left, at(v), width-20, at(v), gray, "2 3")
		s.text(left-8, at(v)+4, "end", strconv.FormatFloat(v, 'g', 3, 64))
	}
	gap := (width - left - 20) / float64(max(len(loads), 1))
	for k, c := range rep.Contenders {
		var last [2]*[2]float64
		for i, w := range loads {
			x := left + gap*(float64(i)+0.5) + (float64(k)-float64(len(rep.Contenders)-1)/2)*14
			for j, of := range []func(Run) float64{func(r Run) float64 { return r.Latency.P50 }, func(r Run) float64 { return r.Latency.P99 }} {
				v := rep.figures(w.Name, c, of)
				if v.N == 0 {
					last[j] = nil
					continue
				}
				y := at(v.Median)
				// Lines join rates; half the CPU is something else than a rate.
				if last[j] != nil && !w.Busy {
					s.line(last[j][0], last[j][1], x, y, colors[c], []string{"", "4 3"}[j])
				}
				s.line(x, at(v.Min), x, at(v.Max), black, "")
				s.dot(x, y, colors[c], j == 0)
				last[j] = &[2]float64{x, y}
			}
		}
	}
	for i, w := range loads {
		label := fmt.Sprintf("%d/s", rep.rate(w))
		if w.Busy {
			label += ", half the CPU"
		}
		s.text(left+gap*(float64(i)+0.5), bottom+20, "middle", label)
	}
	rep.legend(s, rep.Contenders, bottom+45)
	return s.String()
}

// legend names the colors, and says where the plot comes from.
func (rep *Report) legend(s *svg, names []string, y float64) {
	x := 10.0
	for _, c := range names {
		s.rect(x, y-10, 12, 12, colors[c])
		s.text(x+17, y, "start", c)
		x += 100
	}
	for i, line := range rep.caption() {
		s.text(10, y+18+16*float64(i), "start", line)
	}
}

// plots writes both pictures into a folder.
func (rep *Report) plots(dir string) error {
	if err := writeFile(filepath.Join(dir, "throughput.svg"), []byte(rep.throughputPlot())); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "latency.svg"), []byte(rep.latencyPlot()))
}
