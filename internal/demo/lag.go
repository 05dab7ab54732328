package demo

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// lagMeter measures how far one direction is behind, also while the link is cut and the
// receiver cannot know: the age of the oldest position seen published and not yet applied.
type lagMeter struct {
	open []published // ascending
}

type published struct {
	at  time.Time
	lsn wal.LSN
}

// see takes what the origin has published and the peer has applied at a time, and returns
// the lag.
func (m *lagMeter) see(at time.Time, out, applied wal.LSN) time.Duration {
	if n := len(m.open); out > applied && (n == 0 || out > m.open[n-1].lsn) {
		m.open = append(m.open, published{at, out})
	}
	for len(m.open) > 0 && m.open[0].lsn <= applied {
		m.open = m.open[1:]
	}
	if len(m.open) == 0 {
		return 0
	}
	return at.Sub(m.open[0].at)
}

// sample is the lag of both directions at one time of the run.
type sample struct {
	At     time.Duration // since the start
	Lag    [2]float64    // seconds
	LinkUp bool
}

// column is what one column of the graph shows.
type column struct {
	value float64
	known bool // there is a sample in it or before it
	cut   bool // the link was cut at some time in it
}

// columns spreads the samples of one direction over so many columns. A column holds the
// highest of its samples; one without a sample, between others, repeats the one before.
func columns(samples []sample, way int, total time.Duration, width int) []column {
	out := make([]column, width)
	if width == 0 || total <= 0 {
		return out
	}
	last := -1
	for _, s := range samples {
		i := min(max(int(int64(s.At)*int64(width)/int64(total)), 0), width-1)
		for j := last + 1; j < i && last >= 0; j++ {
			out[j] = column{out[last].value, true, out[last].cut && !s.LinkUp}
		}
		out[i].value = max(out[i].value, s.Lag[way])
		out[i].known = true
		out[i].cut = out[i].cut || !s.LinkUp
		last = i
	}
	return out
}

// ceiling is a round number of seconds that holds every lag.
func ceiling(samples []sample) float64 {
	most := 0.0
	for _, s := range samples {
		most = max(most, s.Lag[0], s.Lag[1])
	}
	for _, top := range []float64{0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600} {
		if most <= top {
			return top
		}
	}
	return most
}
