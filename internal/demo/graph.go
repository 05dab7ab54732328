package demo

import (
	"fmt"
	"strings"
	"time"
)

const margin = 9 // columns left of the graph, for its scale

var eighths = []rune(" ▁▂▃▄▅▆▇█")

// graph draws the lag of one direction over time: height rows below a title. The time in
// which the link was cut has another background.
func graph(v view, way, width, height int) []line {
	top := ceiling(v.Samples)
	w := v.Ways[way]
	lines := []line{{{wayInk(way, false), fmt.Sprintf("  lag %s → %s ", w.From, w.To)}, {dim, fmt.Sprintf(" now %s, at most %s", seconds(w.LagSeconds), seconds(worst(v.Samples, way)))}}}
	cols := columns(v.Samples, way, v.Total, max(width-margin, 0))
	for row := height - 1; row >= 0; row-- {
		label := ""
		switch {
		case row == height-1:
			label = scale(top)
		case row == 0:
			label = "0"
		}
		l := line{{dim, fmt.Sprintf("%*s ┤", margin-2, label)}}
		for _, c := range cols {
			l = append(l, span{wayInk(way, c.cut), string(cell8(c, top, row, height))})
		}
		lines = append(lines, merge(l))
	}
	return lines
}

// cell8 is the piece of a column in one row, counted from below: eighths of a cell. Where
// there is a lag at all, the lowest row shows at least one eighth.
func cell8(c column, top float64, row, height int) rune {
	if !c.known {
		return ' '
	}
	full := int(c.value / top * float64(height*8))
	if full == 0 {
		full = 1
	}
	return eighths[min(max(full-row*8, 0), 8)]
}

// axis is the time below the graphs, with the cut marked in words where there is room.
func axis(v view, width int) line {
	n := max(width-margin, 0)
	cells := []rune(strings.Repeat("─", n))
	cols := columns(v.Samples, 0, v.Total, n)
	for at := tick(v.Total, n); at < v.Total; at += tick(v.Total, n) {
		text := []rune("┬" + clock(at))
		if i := int(int64(n) * int64(at) / int64(v.Total)); i+len(text) < n {
			copy(cells[i:], text)
		}
	}
	l := line{{dim, fmt.Sprintf("%*s └", margin-2, "")}}
	for from := 0; from < n; {
		to := from + 1
		for to < n && cols[to].cut == cols[from].cut {
			to++
		}
		if !cols[from].cut {
			l = append(l, span{dim, string(cells[from:to])})
		} else {
			l = append(l, span{alarm, centre(to-from, "link cut", "cut")})
		}
		from = to
	}
	return l
}

// tick is the time between two marks on the axis, ten columns at least.
func tick(total time.Duration, width int) time.Duration {
	for _, t := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute} {
		if int64(t)*int64(width) >= 10*int64(total) {
			return t
		}
	}
	return max(total/4, time.Hour)
}

func clock(t time.Duration) string {
	if t = t.Round(time.Second); t < 2*time.Minute {
		return fmt.Sprintf("%.0fs", t.Seconds())
	}
	return fmt.Sprintf("%.0fm", t.Minutes())
}

// centre puts the longest word that fits into the middle of n columns.
func centre(n int, words ...string) string {
	for _, w := range words {
		if len(w) <= n {
			left := (n - len(w)) / 2
			return strings.Repeat(" ", left) + w + strings.Repeat(" ", n-len(w)-left)
		}
	}
	return strings.Repeat(" ", n)
}

func worst(samples []sample, way int) (most float64) {
	for _, s := range samples {
		most = max(most, s.Lag[way])
	}
	return most
}

func scale(top float64) string { return fmt.Sprintf("%g s", top) }

// merge joins neighbours of one ink.
func merge(l line) line {
	out := line{}
	for _, s := range l {
		if n := len(out); n > 0 && out[n-1].ink == s.ink {
			out[n-1].text += s.text
			continue
		}
		out = append(out, s)
	}
	return out
}
