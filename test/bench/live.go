package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
)

// alone measures one contender while the source is at work, with nobody else's slot there.
// The contender "none" is the source without a replicator.
func (b *bench) alone(ctx context.Context, w Workload, name string, run *Run) (err error) {
	if err := b.openSource(ctx, w); err != nil {
		return err
	}
	clean := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, b.discard(clean, b.Source, b.source)) }()
	if name == "none" {
		if err := b.settle(ctx); err != nil {
			return err
		}
		run.Seconds = b.o.span(liveSpan).Seconds()
		run.TPS, err = b.load(ctx, w, b.o.span(liveSpan))
		return err
	}
	c, err := b.openTarget(ctx, w, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.away(clean, c)) }()
	src, err := b.connect(ctx, b.Source, b.source)
	if err != nil {
		return err
	}
	defer src.Close(clean)
	dst, err := b.connect(ctx, b.Target, b.target(name))
	if err != nil {
		return err
	}
	defer dst.Close(clean)
	if err := c.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if err := c.Arm(ctx); err != nil {
		return fmt.Errorf("arm: %w", err)
	}
	released := time.Now()
	if err := c.Release(ctx); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := started(ctx, c, src); err != nil {
		return err
	}
	run.StartUp = time.Since(released).Seconds()
	// The first row over the whole way: after it everything is warm.
	if err := b.mark(ctx, 1); err != nil {
		return err
	}
	if err := b.watch(ctx, c, dst, 1); err != nil {
		return err
	}
	skip := map[uint32]bool{src.PgConn().PID(): true, dst.PgConn().PID(): true, c.Holder(): true}
	before, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	dbs := [2]string{b.source, b.target(name)}
	from, err := b.read(ctx, dbs, c.Sidecars())
	if err != nil {
		return err
	}
	switch w.Kind {
	case Live:
		run.Seconds = b.o.span(liveSpan).Seconds()
		run.TPS, err = b.load(ctx, w, b.o.span(liveSpan))
		run.Rows = int(run.TPS * run.Seconds)
	case Idle:
		run.Seconds = b.o.span(idleSpan).Seconds()
		err = pause.For(ctx, b.o.span(idleSpan))
	default:
		run.Latency, run.Rows, err = b.latency(ctx, w, src, dst)
	}
	if err != nil {
		return err
	}
	ended := time.Now()
	if err := b.mark(ctx, 2); err != nil {
		return err
	}
	if err := b.watch(ctx, c, dst, 2); err != nil {
		return err
	}
	run.Lag = time.Since(ended).Seconds()
	after, err := b.account(c.Sidecars(), skip)
	if err != nil {
		return err
	}
	run.take(after, before, c)
	to, err := b.read(ctx, dbs, c.Sidecars())
	if err != nil {
		return err
	}
	run.Account = to.since(from)
	want, err := b.hash(ctx, src)
	if err != nil {
		return err
	}
	return b.compare(ctx, dst, want)
}

// load is pgbench at full speed; the source waits for its disk as it does by default.
func (b *bench) load(ctx context.Context, w Workload, span time.Duration) (float64, error) {
	return b.pgbench(ctx, b.source, loadScript(w.Base(b.o).Rows), span+time.Minute, nil, "-T", fmt.Sprint(int(span.Seconds())))
}

// latency runs a load at a fixed rate, and among it a prober that inserts one row and looks
// for it at the target without a pause. It returns the number of transactions, too.
func (b *bench) latency(ctx context.Context, w Workload, src, dst *pgx.Conn) (*Latencies, int, error) {
	span := b.o.span(latencySpan)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan error, 1) // one result, so that the goroutine ends in any case
	var tps float64               // of the load, once loaded says that it is over
	go func() {
		var err error
		tps, err = b.pgbench(loading, b.source, loadScript(w.Base(b.o).Rows), span+time.Minute, nil,
			"-T", fmt.Sprint(int(span.Seconds())+2), "-R", fmt.Sprint(b.o.Rate-probeRate))
		loaded <- err
	}()
	var all []float64
	tick := time.NewTicker(time.Second / probeRate)
	defer tick.Stop()
	begin, n := time.Now(), 0
	for ; time.Since(begin) < span+time.Second; n++ {
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-tick.C:
		}
		ms, err := probe(ctx, src, dst, n)
		if err != nil {
			stop()
			return nil, 0, errors.Join(err, <-loaded)
		}
		if time.Since(begin) > time.Second { // the load has begun
			all = append(all, ms)
		}
	}
	if err := <-loaded; err != nil {
		return nil, 0, err
	}
	return percentiles(all), n + int(tps*(span+2*time.Second).Seconds()), nil
}

// probe returns the milliseconds between a commit at the source and its row at the target.
func probe(ctx context.Context, src, dst *pgx.Conn, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	name := fmt.Sprintf("probe%d", n)
	if _, err := src.Exec(ctx, `insert into users (username, email, password) values ($1, $1 || '@example.com', '')`, name); err != nil {
		return 0, fmt.Errorf("insert probe: %w", err)
	}
	begin := time.Now()
	for {
		var there bool
		if err := dst.QueryRow(ctx, `select exists (select from users where username = $1)`, name).Scan(&there); err != nil {
			return 0, fmt.Errorf("look for probe: %w", err)
		}
		if there {
			return float64(time.Since(begin).Microseconds()) / 1000, nil
		}
	}
}

func percentiles(v []float64) *Latencies {
	if len(v) == 0 {
		return &Latencies{}
	}
	slices.Sort(v)
	at := func(p float64) float64 { return v[min(int(p*float64(len(v))), len(v)-1)] }
	return &Latencies{Probes: len(v), P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: v[len(v)-1]}
}
