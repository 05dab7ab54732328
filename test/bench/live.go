package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
		load, err := b.load(ctx, w, b.o.span(liveSpan))
		run.TPS = load.TPS
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
	if w.Busy { // until the last reading: what has ended would count as the application
		f, err := kindle(b.Room.Dir)
		if err != nil {
			return err
		}
		defer f.out()
	}
	dbs := [2]string{b.source, b.target(name)}
	from, err := b.read(ctx, dbs, c.Sidecars())
	if err != nil {
		return err
	}
	switch w.Kind {
	case Live:
		run.Seconds = b.o.span(liveSpan).Seconds()
		var load Load
		load, err = b.load(ctx, w, b.o.span(liveSpan))
		run.TPS, run.Rows = load.TPS, load.Count
	case Idle:
		run.Seconds = b.o.span(idleSpan).Seconds()
		err = pause.For(ctx, b.o.span(idleSpan))
	default:
		run.Latency, run.Rows, run.Seconds, err = b.latency(ctx, w, src, dst, c.Alive)
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
func (b *bench) load(ctx context.Context, w Workload, span time.Duration) (Load, error) {
	return b.pgbench(ctx, b.Source, b.source, loadScript(w.Base(b.o).Rows), span+time.Minute, nil, "-T", fmt.Sprint(int(span.Seconds())))
}

// latency runs a load at a fixed rate and a prober among it. It returns the number of transactions, too, and the seconds
// that the load took.
func (b *bench) latency(ctx context.Context, w Workload, src, dst *pgx.Conn, alive func() error) (*Latencies, int, float64, error) {
	span := b.o.span(latencySpan)
	var l *Latencies
	var load Load
	err := together(ctx, func(ctx context.Context) (err error) {
		load, err = b.pgbench(ctx, b.Source, b.source, loadScript(w.Base(b.o).Rows), span+2*time.Minute, nil,
			"-T", strconv.Itoa(int(span.Seconds())+2), "-R", strconv.Itoa(b.rep.rate(w)-probeRate))
		return err
	}, func(ctx context.Context) (err error) {
		p := &prober{src: src, dst: dst, first: probeIDs, alive: alive}
		l, err = p.run(ctx, span+time.Second, time.Second, b.o.Timeout)
		return err
	})
	if err != nil {
		return nil, 0, 0, err
	}
	if l.Lost > 0 {
		return nil, 0, 0, fmt.Errorf("wait for probes: %d of %d have not arrived", l.Lost, l.Probes+l.Lost)
	}
	return l, load.Count + l.Probes, load.seconds(), nil
}
