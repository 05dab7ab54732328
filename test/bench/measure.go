package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/tpcc"
)

// sayFunc tells the user how far the run is.
type sayFunc func(format string, args ...any)

// bench is one run of the program.
type bench struct {
	*Rig
	o      Options
	rep    *Report
	say    sayFunc
	jobs   int    // how many so far, for names of databases
	source string // database of the job at hand
	tpcc   *tpcc.Tool
}

// measure runs everything. The report is nil only when nothing could be started.
func measure(ctx context.Context, o Options, say sayFunc) (*Report, error) {
	b := &bench{o: o, say: say}
	if o.Before != "" { // the two take turns, so both have to be known by their paths
		var err error
		if b.o.Binary, err = harness.Product(); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	for n := 1; n <= o.Repetitions; n++ {
		if err := b.repetition(ctx, n); err != nil {
			if b.rep != nil {
				b.rep.Took = time.Since(began).Seconds()
			}
			return b.rep, fmt.Errorf("repetition %d: %w", n, err)
		}
	}
	b.rep.Took = time.Since(began).Seconds()
	return b.rep, nil
}

// repetition measures every workload once, on clusters of its own.
func (b *bench) repetition(ctx context.Context, n int) error {
	rig, err := newRig(ctx, b.o, b.say)
	if err != nil {
		return err
	}
	defer rig.Close()
	if b.Rig = rig; b.rep == nil {
		b.begin(ctx)
	}
	if b.o.Keep {
		b.say("data and logs stay in %s", rig.Room.Dir)
	}
	for _, w := range workloads() {
		if !slices.Contains(b.o.Workloads, w.Name) {
			continue
		}
		if err := b.workload(ctx, w, n); err != nil {
			return fmt.Errorf("measure %s: %w", w.Name, err)
		}
	}
	return nil
}

// begin opens the report.
func (b *bench) begin(ctx context.Context) {
	rep := &Report{
		Commit: commit(ctx), Started: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(ctx, b.Rig),
		Settings: b.settings, Sidecar: b.o.Set, Scale: b.o.Scale, Repetitions: b.o.Repetitions, LeftOut: map[string]string{},
	}
	for _, c := range b.o.Contenders {
		if c == "pglogical" && b.NoPglogical != "" {
			rep.LeftOut[c] = b.NoPglogical
			continue
		}
		rep.Contenders = append(rep.Contenders, c)
	}
	b.rep = rep
	m := rep.Machine
	b.say("commit %s, PostgreSQL %s, %d cores (%s), kernel %s, scale %g", rep.Commit, m.PostgreSQL, m.Cores, m.CPU, m.Kernel, b.o.Scale)
}

// order rotates the contenders, so that each is first as often as last.
func (b *bench) order(n int, more ...string) []string {
	all := append(slices.Clone(more), b.rep.Contenders...)
	k := (n - 1) % len(all)
	return append(slices.Clone(all[k:]), all[:k]...)
}

func (b *bench) workload(ctx context.Context, w Workload, n int) error {
	b.say("%s, repetition %d: %s", w.Name, n, w.What)
	if w.Kind == Drain {
		return b.drains(ctx, w, n)
	}
	names := b.order(n)
	if w.Kind == Live || w.Kind == Beside {
		names = b.order(n, "none")
	}
	one := b.alone
	switch w.Kind {
	case Fill:
		one = b.fill
		names = slices.DeleteFunc(names, func(c string) bool { return c == "pglogical" })
	case Beside:
		one = b.beside
		names = slices.DeleteFunc(names, func(c string) bool { return c == "pglogical" })
	}
	for _, name := range names {
		run := Run{Workload: w.Name, Contender: name, Repetition: n}
		if err := one(ctx, w, name, &run); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			run.Error = err.Error()
		}
		b.note(run)
	}
	return nil
}

// note keeps a run and tells about it.
func (b *bench) note(r Run) {
	b.rep.Runs = append(b.rep.Runs, r)
	switch {
	case r.Error != "":
		b.say("  %-10s FAILED: %s", r.Contender, r.Error)
	case r.Latency != nil:
		b.say("  %-10s p50 %.2f ms, p95 %.2f, p99 %.2f, max %.2f (%d probes)", r.Contender, r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max, r.Latency.Probes)
	case r.TPCC != nil:
		t := r.TPCC
		b.say("  %-10s %.0f tpmC, longest transaction %.3f s, %d deadlocks, %d errors, lag %.1f s, side tables %d and %d MB beside %d and %d", r.Contender,
			t.TpmC, t.Longest, t.Deadlocks, t.Errors, r.Lag, t.Sides[0]>>20, t.Sides[1]>>20, t.Data[0]>>20, t.Data[1]>>20)
	case r.TPS > 0:
		b.say("  %-10s %.0f transactions/s, lag %.2f s", r.Contender, r.TPS, r.Lag)
	case r.Workload == "W0":
		b.say("  %-10s idle", r.Contender)
	default:
		b.say("  %-10s %.0f rows/s (%d rows in %.2f s, start-up %.2f s)", r.Contender, r.figure(), r.Rows, r.Seconds, r.StartUp)
	}
}

func (b *bench) target(contender string) string { return fmt.Sprintf("job%d_%s", b.jobs, contender) }

// openSource makes the source database of a new job.
func (b *bench) openSource(ctx context.Context, w Workload) error {
	b.jobs++
	b.source = fmt.Sprintf("job%d", b.jobs)
	if err := b.database(ctx, b.Source, b.source, w.Base(b.o)); err != nil {
		return err
	}
	return b.exec(ctx, b.Source, b.source, publicationSQL)
}

func (b *bench) openTarget(ctx context.Context, w Workload, name string) (Contender, error) {
	db, base := b.target(name), w.Base(b.o)
	if w.Kind == Fill {
		base.Rows = 0
	}
	if err := b.database(ctx, b.Target, db, base); err != nil {
		return nil, err
	}
	return newContender(name, site{rig: b.Rig, source: b.source, target: db, set: b.o.Set, fill: w.Kind == Fill, both: w.Kind == Idle, binary: b.binary(name)})
}

// binary is what a contender of ours runs; empty: whatever harness.Product says.
func (b *bench) binary(contender string) string {
	if contender == before {
		return b.o.Before
	}
	return b.o.Binary
}

// hash is one value for all rows of a database.
func (b *bench) hash(ctx context.Context, conn *pgx.Conn) (string, error) {
	var h string
	if err := conn.QueryRow(ctx, hashQuery).Scan(&h); err != nil {
		return "", fmt.Errorf("hash rows: %w", err)
	}
	return h, nil
}
