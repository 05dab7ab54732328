package demo

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// way is what the screen shows of one direction; from is the region at its beginning.
type way struct {
	From, To     string
	State        status.State
	WritesPerSec float64 // by the application at its beginning
	RowsPerSec   float64 // applied at its end
	LagSeconds   float64
	Backlog      int64 // bytes of WAL not published yet, plus not applied yet

	published, applied wal.LSN // where the stream ends, and what the other end has of it
}

// view is one look at everything.
type view struct {
	Phase   string
	Elapsed time.Duration
	Total   time.Duration
	LinkUp  bool
	Carried int64 // bytes over the link
	Ways    [2]way
	Latency latency

	Samples   []sample // of the lag, from the start
	Newest    []logged // conflicts, newest first
	Conflicts int      // settled so far
	InBoth    int      // of those, in the logs of both regions
}

// monitor asks both sidecars for their status four times a second.
type monitor struct {
	regions [2]*region
	work    *workload

	link    *proxy.Proxy
	started time.Time

	mu      sync.Mutex
	ways    [2]way
	samples []sample
}

const monitorEvery = 250 * time.Millisecond

func (m *monitor) run(ctx context.Context) error {
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	var before [2]status.Status
	var writes [2]int
	var meters [2]lagMeter
	var rates [2]rate
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, ok := m.fetch(ctx)
		counts := m.work.snapshot()
		seconds := time.Since(last).Seconds()
		last = time.Now()
		one := sample{At: last.Sub(m.started), LinkUp: m.link.Up()}
		m.mu.Lock()
		for i := range m.regions {
			w := wayOf(m.regions[i].name, m.regions[1-i].name, before, now, ok, i, seconds)
			rates[i].see(float64(counts.Writes[i]-writes[i])/seconds, w.RowsPerSec)
			w.WritesPerSec, w.RowsPerSec = rates[i].writes, rates[i].rows
			if ok[i] && ok[1-i] {
				w.LagSeconds = max(w.LagSeconds, meters[i].see(last, w.published, w.applied).Seconds())
			}
			one.Lag[i] = w.LagSeconds
			m.ways[i] = w
		}
		m.samples = append(m.samples, one)
		m.mu.Unlock()
		before, writes = now, counts.Writes
	}
}

// fetch gets both at once; a sidecar that does not answer is marked so, not an error.
func (m *monitor) fetch(ctx context.Context) (both [2]status.Status, ok [2]bool) {
	var g errgroup.Group
	for i, r := range m.regions {
		g.Go(func() error {
			st, err := admin.Fetch(ctx, r.http)
			both[i], ok[i] = st, err == nil
			return nil
		})
	}
	_ = g.Wait() // never an error
	return both, ok
}

// wayOf reads direction i (from region i to the other) out of both accounts.
func wayOf(from, to string, before, now [2]status.Status, ok [2]bool, i int, seconds float64) way {
	w := way{From: from, To: to, State: status.Down}
	if ok[i] && now[i].Outbound != nil {
		w.Backlog = now[i].Outbound.BacklogBytes
		w.published = position(now[i].Outbound.PublishedLSN)
	}
	in := inbound(now[1-i], from)
	if !ok[1-i] || in == nil {
		return w
	}
	w.State, w.LagSeconds, w.applied = in.State, in.LagSeconds, position(in.EndLSN)
	behind := in.LagBytes
	if w.published > w.applied {
		behind = max(behind, int64(w.published-w.applied))
	}
	w.Backlog += behind
	if old := inbound(before[1-i], from); old != nil && in.Rows >= old.Rows && seconds > 0 {
		w.RowsPerSec = float64(in.Rows-old.Rows) / seconds
	}
	return w
}

// rate smooths two figures, so that they can be read.
type rate struct {
	writes, rows float64
	seen         bool
}

func (r *rate) see(writes, rows float64) {
	weight := 0.4
	if !r.seen {
		weight, r.seen = 1, true
	}
	r.writes += weight * (writes - r.writes)
	r.rows += weight * (rows - r.rows)
}

func inbound(st status.Status, origin string) *status.Inbound {
	for i := range st.Inbound {
		if st.Inbound[i].Origin == origin {
			return &st.Inbound[i]
		}
	}
	return nil
}

// look returns both directions and the lag from the start.
func (m *monitor) look() ([2]way, []sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ways, slices.Clone(m.samples)
}

// position reads a position of the WAL; what cannot be read is 0.
func position(text string) wal.LSN {
	lsn, err := wal.ParseLSN(text)
	if err != nil {
		return 0
	}
	return lsn
}
