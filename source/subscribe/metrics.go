package subscribe

import "github.com/prometheus/client_golang/prometheus"

// Metrics are one origin's figures.
type Metrics struct {
	frames, bytes, duplicates, refused, gaps, rewinds, sessions prometheus.Counter
	reachable, backlog, gap                                     prometheus.Gauge
}

// NewMetrics registers them under the label origin; with a nil registry they
// count for nobody.
func NewMetrics(reg prometheus.Registerer, origin string) *Metrics {
	const ns, sub = "pgwaltz", "subscription"
	label := prometheus.Labels{"origin": origin}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help, ConstLabels: label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help, ConstLabels: label})
	}
	m := &Metrics{
		frames:     counter("frames_total", "Frames that continued the checkpoint."),
		bytes:      counter("bytes_total", "Bytes of those frames as messages."),
		duplicates: counter("duplicates_total", "Frames that were applied before and skipped."),
		refused:    counter("refused_total", "Messages that are no frame of the origin, put into quarantine."),
		gaps:       counter("gaps_total", "Holes found in the frames."),
		rewinds:    counter("rewinds_total", "Requests to the origin to send again from its slot."),
		sessions:   counter("sessions_total", "Times that the stream was opened."),
		reachable:  gauge("reachable", "1 while the origin's stream answers."),
		backlog:    gauge("backlog_frames", "Frames in the stream and packets in the queue that are not delivered."),
		gap:        gauge("gap", "1 while something is missing."),
	}
	if reg != nil {
		reg.MustRegister(m.frames, m.bytes, m.duplicates, m.refused, m.gaps, m.rewinds, m.sessions, m.reachable, m.backlog, m.gap)
	}
	return m
}
