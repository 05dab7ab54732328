package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// screen shows views: redrawn in place on a terminal, else as a line each second. It moves
// the cursor only over its own lines and changes no mode of the terminal, so that there is
// nothing to restore however the program ends.
type screen struct {
	out      io.Writer
	terminal bool
	width    int
	drawn    int // lines on the terminal that the next frame replaces
}

// run draws what look returns until ctx ends.
func (s *screen) run(ctx context.Context, look func() view) error {
	every := time.Second
	if s.terminal {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.show(look())
		}
	}
}

func (s *screen) show(v view) {
	if !s.terminal {
		fmt.Fprintln(s.out, plainLine(v))
		return
	}
	s.clear()
	lines := frame(v, s.width)
	fmt.Fprint(s.out, strings.Join(lines, "\n")+"\n")
	s.drawn = len(lines)
}

// say prints a line that stays, above the live part.
func (s *screen) say(format string, args ...any) {
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// clear takes the live part away.
func (s *screen) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func linkWord(up bool) string {
	if up {
		return "up"
	}
	return "CUT"
}

func plainLine(v view) string {
	s := fmt.Sprintf("%5.1fs %-8s link %-3s", v.Elapsed.Seconds(), v.Phase, linkWord(v.LinkUp))
	for _, w := range v.Ways {
		s += fmt.Sprintf("  %s->%s %s %.0f writes/s %.0f rows/s lag %s backlog %s", w.From, w.To, w.State, w.WritesPerSec, w.RowsPerSec,
			seconds(w.LagSeconds), size(w.Backlog))
	}
	return s + fmt.Sprintf("  conflicts %d", v.Ways[0].Conflicts+v.Ways[1].Conflicts)
}

// frame is the live screen; every line fits the width, so that no line wraps.
func frame(v view, width int) []string {
	const left = 22
	row := func(name string, cell func(way) string) string {
		return fmt.Sprintf("  %-*s%18s%18s", left-2, name, cell(v.Ways[0]), cell(v.Ways[1]))
	}
	lines := []string{
		fmt.Sprintf("pgwaltz demo: two regions, both accept writes   %s", v.Phase),
		bar(v.Elapsed, v.Total),
		row("", func(w way) string { return w.From + " -> " + w.To }),
		row("link", func(way) string { return linkWord(v.LinkUp) }),
		row("state", func(w way) string { return string(w.State) }),
		row("writes/s", func(w way) string { return fmt.Sprintf("%.0f", w.WritesPerSec) }),
		row("rows applied/s", func(w way) string { return fmt.Sprintf("%.0f", w.RowsPerSec) }),
		row("lag", func(w way) string { return seconds(w.LagSeconds) }),
		row("backlog", func(w way) string { return size(w.Backlog) }),
		row("conflicts settled", func(w way) string { return fmt.Sprintf("%d", w.Conflicts) }),
		fmt.Sprintf("  commit to visible: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms   link carried %s", v.Latency.P50, v.Latency.P95, v.Latency.P99, size(v.Carried)),
	}
	for i, l := range lines {
		if r := []rune(l); width > 0 && len(r) > width-1 {
			lines[i] = string(r[:width-1])
		}
	}
	return lines
}

func bar(elapsed, total time.Duration) string {
	const cells = 40
	full := cells
	if total > 0 && elapsed < total {
		full = int(cells * elapsed / total)
	}
	return fmt.Sprintf("  [%s%s] %.0fs of %.0fs", strings.Repeat("=", full), strings.Repeat(" ", cells-full), elapsed.Seconds(), total.Seconds())
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
