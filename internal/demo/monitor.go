package demo

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// way is what the screen shows of one direction; from is the region at its beginning.
type way struct {
	From, To     string
	State        status.State
	WritesPerSec float64 // by the application at its beginning
	RowsPerSec   float64 // applied at its end
	LagSeconds   float64
	LagBytes     int64
	Backlog      int64 // bytes of log not published yet, plus not applied yet
	Conflicts    uint64
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
	Planned int // conflicts made on purpose so far
}

// monitor asks both sidecars for their status twice a second.
type monitor struct {
	regions [2]*region
	work    *workload

	mu   sync.Mutex
	ways [2]way
}

const monitorEvery = 500 * time.Millisecond

func (m *monitor) run(ctx context.Context) error {
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	var before [2]status.Status
	var writes [2]int
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
		m.mu.Lock()
		for i := range m.regions {
			m.ways[i] = wayOf(m.regions[i].name, m.regions[1-i].name, before, now, ok, i, seconds)
			m.ways[i].WritesPerSec = float64(counts.Writes[i]-writes[i]) / seconds
		}
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
	}
	in := inbound(now[1-i], from)
	if !ok[1-i] || in == nil {
		return w
	}
	w.State, w.LagSeconds, w.LagBytes, w.Conflicts = in.State, in.LagSeconds, in.LagBytes, now[1-i].Conflicts.Total
	w.Backlog += in.LagBytes
	if old := inbound(before[1-i], from); old != nil && in.Rows >= old.Rows && seconds > 0 {
		w.RowsPerSec = float64(in.Rows-old.Rows) / seconds
	}
	return w
}

func inbound(st status.Status, origin string) *status.Inbound {
	for i := range st.Inbound {
		if st.Inbound[i].Origin == origin {
			return &st.Inbound[i]
		}
	}
	return nil
}

func (m *monitor) look() [2]way {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ways
}
