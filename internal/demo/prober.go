package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
)

const (
	probeEvery = 50 * time.Millisecond
	probeLimit = 10 * time.Second
)

// prober measures how long a commit at one region takes to be visible at the other: it
// inserts a user row here and asks for it there, once a millisecond.
type prober struct {
	regions [2]*region
	ledger  *ledger
	work    *workload
	link    *proxy.Proxy
	rng     *rand.Rand

	mu      sync.Mutex
	samples []time.Duration
}

// run probes both ways in turn until ctx ends. Around a cut nothing is measured: a sample
// counts when the link was up from the insert to the sight of it and the probe before it,
// the same way, had arrived too, so that the backlog of the cut is gone.
func (p *prober) run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var caughtUp [2]bool
	for way := 0; ; way = 1 - way {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !p.link.Up() {
			caughtUp = [2]bool{}
			continue
		}
		took, seen, err := p.probe(ctx, way)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case !seen:
			caughtUp[way] = false
			continue
		}
		if caughtUp[way] {
			p.mu.Lock()
			p.samples = append(p.samples, took)
			p.mu.Unlock()
		}
		caughtUp[way] = true
	}
}

// probe sends one row from region way to the other. It gives up when the link goes down.
func (p *prober) probe(ctx context.Context, way int) (time.Duration, bool, error) {
	c := &client{w: p.work, r: p.regions[way], side: way, rng: p.rng}
	key := newUUID(p.rng)
	if !c.insertUser(context.WithoutCancel(ctx), key, false) {
		return 0, false, nil // refused, and counted
	}
	committed := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		var one int
		err := p.regions[1-way].pool.QueryRow(ctx, "SELECT 1 FROM users WHERE uuid = $1", key).Scan(&one)
		took := time.Since(committed)
		switch {
		case err == nil:
			return took, true, nil
		case !errors.Is(err, pgx.ErrNoRows):
			return 0, false, fmt.Errorf("probe from %s to %s: %w", p.regions[way].name, p.regions[1-way].name, err)
		case took > probeLimit || !p.link.Up():
			return 0, false, nil
		}
		select {
		case <-ctx.Done():
			return 0, false, nil
		case <-tick.C:
		}
	}
}

// latency is a summary of the samples, in milliseconds.
type latency struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P95     float64 `json:"p95_ms"`
	P99     float64 `json:"p99_ms"`
}

func (p *prober) latency() latency {
	p.mu.Lock()
	samples := slices.Clone(p.samples)
	p.mu.Unlock()
	return latencyOf(samples)
}

func latencyOf(samples []time.Duration) latency {
	slices.Sort(samples)
	at := func(q float64) float64 {
		if len(samples) == 0 {
			return 0
		}
		i := min(int(q*float64(len(samples))), len(samples)-1)
		return float64(samples[i].Microseconds()) / 1000
	}
	return latency{Samples: len(samples), P50: at(0.50), P95: at(0.95), P99: at(0.99)}
}
