package publish

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the publisher's figures. They outlive a Publisher, so that a new
// incarnation goes on counting.
type Metrics struct {
	frames, bytes, reconciles, republished, foreign, fullSeconds prometheus.Counter
	latency                                                      prometheus.Histogram
	inFlight, streamMessages, streamBytes, streamMaxBytes        prometheus.Gauge
	streamFull                                                   prometheus.Gauge
}

// NewMetrics registers them; with a nil registry they count for nobody.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const ns, sub = "pgwaltz", "publisher"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	m := &Metrics{
		frames:      counter("frames_total", "Frames known to be durable in the stream."),
		bytes:       counter("bytes_total", "Bytes of those frames."),
		reconciles:  counter("reconciles_total", "Times that the stream was read to settle what was published."),
		republished: counter("republished_total", "Frames sent again after that."),
		foreign:     counter("foreign_messages_total", "Messages on the subject that are none of our frames."),
		fullSeconds: counter("stream_full_seconds_total", "Seconds spent waiting for room in the stream."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: sub, Name: "ack_seconds", Help: "From publish to acknowledgement, fsync included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		inFlight:       gauge("frames_in_flight", "Frames taken and not yet durable."),
		streamMessages: gauge("stream_messages", "Messages in the stream."),
		streamBytes:    gauge("stream_bytes", "Bytes of the stream."),
		streamMaxBytes: gauge("stream_max_bytes", "Limit of the stream in bytes."),
		streamFull:     gauge("stream_full", "1 while the stream takes nothing for want of room."),
	}
	if reg != nil {
		reg.MustRegister(m.frames, m.bytes, m.reconciles, m.republished, m.foreign, m.fullSeconds, m.latency,
			m.inFlight, m.streamMessages, m.streamBytes, m.streamMaxBytes, m.streamFull)
	}
	return m
}
