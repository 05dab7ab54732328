package demo

import (
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// The parts of a frame, in lines: the head with the table, and below it the graphs of both
// directions and the conflicts, as far as there is room.
const (
	headLines     = 4
	tableLines    = 7
	graphOverhead = 3 // two titles and the axis
	fewConflicts  = 3
)

// frame is the live screen of so many columns and rows. No line is wider, and there are no
// more lines.
func frame(v view, width, height int) []line {
	lines := append(head(v, width), table(v)...)
	if rest := height - len(lines) - 1; rest >= graphOverhead+2 {
		conflicts := 0
		if rest >= graphOverhead+4+2+fewConflicts {
			conflicts = max(rest/3, 2+fewConflicts)
		}
		rows := (rest - conflicts - graphOverhead) / 2
		lines = append(lines, line{})
		lines = append(lines, graph(v, 0, width, rows)...)
		lines = append(lines, graph(v, 1, width, rows)...)
		lines = append(lines, axis(v, width))
		lines = append(lines, feedLines(v, height-len(lines))...)
	}
	if len(lines) > height {
		lines = lines[:max(height, 0)]
	}
	for i, l := range lines {
		lines[i] = l.fit(width)
	}
	return lines
}

func head(v view, width int) []line {
	title := line{{bold, " pgwaltz demo"}, {plain, "  two regions, both accept writes"}}
	right := fmt.Sprintf("%s  %s of %s ", v.Phase, clock(v.Elapsed), clock(v.Total))
	title = append(title.pad(width-len([]rune(right))), span{plain, right})
	return []line{title, bar(v, width), picture(v, width), {}}
}

// bar is the time that has passed.
func bar(v view, width int) line {
	cells := max(width-2, 0)
	full := cells
	if v.Total > 0 && v.Elapsed < v.Total {
		full = int(int64(cells) * int64(v.Elapsed) / int64(v.Total))
	}
	return line{{plain, " "}, {green, strings.Repeat("━", full)}, {dim, strings.Repeat("─", cells-full)}}
}

// picture is the link between the regions.
func picture(v view, width int) line {
	from, to := v.Ways[0].From, v.Ways[0].To
	const long = 24
	if v.LinkUp {
		return line{{plain, " "}, {bold, from}, {green, " ●" + strings.Repeat("━", long) + "● "}, {bold, to}, {plain, "   link up, " + size(v.Carried) + " carried"}}
	}
	half := strings.Repeat("━", long/2-3)
	return line{{plain, " "}, {bold, from}, {red, " ●" + half + "╸    ╺" + half + "● "}, {bold, to}, {plain, "   "}, {alarm, " LINK CUT "}}
}

// table holds the figures of both directions.
func table(v view) []line {
	const name, cell = 20, 20
	row := func(title string, f func(way) (string, ink)) line {
		l := line{{dim, fmt.Sprintf(" %-*s", name-1, title)}}
		for _, w := range v.Ways {
			text, ink := f(w)
			l = append(l, span{ink, text}).pad(l.width() + cell)
		}
		return l
	}
	figure := func(f func(way) string) func(way) (string, ink) {
		return func(w way) (string, ink) { return f(w), plain }
	}
	header := line{}.pad(name)
	for i, w := range v.Ways {
		header = append(header, span{wayInk(i, false), fmt.Sprintf("%-*s", cell, w.From+" → "+w.To)})
	}
	lines := []line{header,
		row("state", func(w way) (string, ink) { return string(w.State), stateInk(w.State) }),
		row("writes", figure(func(w way) string { return fmt.Sprintf("%.0f/s", w.WritesPerSec) })),
		row("rows applied", figure(func(w way) string { return fmt.Sprintf("%.0f/s", w.RowsPerSec) })),
		row("backlog", figure(func(w way) string { return size(w.Backlog) })),
		row("commit to visible", func(way) (string, ink) { return "", plain }),
	}
	if v.Latency.Samples > 0 {
		last := &lines[len(lines)-1]
		*last = append((*last)[:1], span{plain, fmt.Sprintf("p50 %.1f ms   p95 %.1f ms   p99 %.1f ms", v.Latency.P50, v.Latency.P95, v.Latency.P99)})
	}
	return lines
}

func stateInk(s status.State) ink {
	switch s {
	case status.Replicating:
		return green
	case status.CatchingUp, status.Standby, status.Parked:
		return yellow
	}
	return red
}

// feedLines are the newest conflicts, newest first, in so many lines with their title.
func feedLines(v view, height int) []line {
	if height < 2 {
		return nil
	}
	lines := []line{{}, {{bold, " conflicts"}, {plain, fmt.Sprintf("  %d settled, %d of them in the logs of both regions", v.Conflicts, v.InBoth)}}}
	for _, s := range v.Newest {
		if len(lines) == height {
			break
		}
		lines = append(lines, feedLine(v, s))
	}
	return lines
}

func feedLine(v view, s logged) line {
	l := line{{dim, fmt.Sprintf("%7.1fs  ", s.At.Seconds())}, {plain, fmt.Sprintf("%-26s", s.Type)}, {bold, fmt.Sprintf("%-24s", s.Table+" "+s.Key)}}
	if s.Winner == "" {
		l = append(l, span{yellow, fmt.Sprintf("%-10s", s.Verdict)})
	} else {
		l = append(l, span{regionInk(v, s.Winner), s.Winner}, span{plain, " over "}, span{regionInk(v, s.Loser), s.Loser})
	}
	if s.Why != "" {
		l = append(l, span{dim, "  by " + s.Why})
	}
	l = append(l.pad(10+26+24+10+16), span{dim, "logged in"})
	for i, w := range v.Ways {
		if s.Logs[i] {
			l = append(l, span{green, " " + w.From})
		}
	}
	return l
}

// regionInk is the colour of what a region sends.
func regionInk(v view, region string) ink {
	for i, w := range v.Ways {
		if w.From == region {
			return wayInk(i, false)
		}
	}
	return plain
}

func linkWord(up bool) string {
	if up {
		return "up"
	}
	return "CUT"
}

// plainLine is the same in one line, for files and for terminals without colour.
func plainLine(v view) string {
	s := fmt.Sprintf("%5.1fs %-8s link %-3s", v.Elapsed.Seconds(), v.Phase, linkWord(v.LinkUp))
	for _, w := range v.Ways {
		s += fmt.Sprintf("  %s->%s %s %.0f writes/s %.0f rows/s lag %s", w.From, w.To, w.State, w.WritesPerSec, w.RowsPerSec, seconds(w.LagSeconds))
	}
	return s + fmt.Sprintf("  conflicts %d", v.Conflicts)
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
