package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	base   Base   // of that
	peers  int    // to which the job at hand replicates
	tpcc   *tpcc.Tool
	began  time.Time
	took   map[string]time.Duration // by each workload in an earlier repetition
}

// measure runs everything. The report is nil only when nothing could be started.
func measure(ctx context.Context, o Options, say sayFunc) (*Report, error) {
	b := &bench{o: o, say: say, began: time.Now(), took: map[string]time.Duration{}}
	if o.Before != "" { // the two take turns, so both have to be known by their paths
		var err error
		if b.o.Binary, err = harness.Product(); err != nil {
			return nil, err
		}
	}
	load := loadAverage()
	defer func() {
		if b.rep != nil {
			b.rep.Took, b.rep.Load = time.Since(b.began).Seconds(), [2]float64{load, loadAverage()}
		}
	}()
	for n := 1; n <= o.Repetitions; n++ {
		if n > 1 && !b.fits(rigTime) {
			b.rep.Repetitions = n - 1
			b.rep.LeftOut[fmt.Sprintf("repetition %d", n)] = "no time left of " + o.Budget.String()
			break
		}
		if err := b.repetition(ctx, n); err != nil {
			return b.rep, fmt.Errorf("repetition %d: %w", n, err)
		}
	}
	return b.rep, nil
}

// rigTime is about what two clusters need to begin and to end.
const rigTime = 15 * time.Second

// need is about what a workload will take: as much as in an earlier repetition, or as the longest so far.
func (b *bench) need(workload string) time.Duration {
	if d, ok := b.took[workload]; ok {
		return d
	}
	longest := time.Duration(0)
	for _, d := range b.took {
		longest = max(longest, d)
	}
	return longest
}

// fits tells whether there is time left for something.
func (b *bench) fits(d time.Duration) bool {
	return b.o.Budget == 0 || time.Since(b.began)+d < b.o.Budget
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
	for _, name := range b.o.Workloads {
		w := workload(name)
		if !b.fits(b.need(name)) {
			b.rep.LeftOut[fmt.Sprintf("%s in repetition %d", w.Name, n)] = "no time left of " + b.o.Budget.String()
			continue
		}
		begin := time.Now()
		if err := b.workload(ctx, w, n); err != nil {
			return fmt.Errorf("measure %s: %w", w.Name, err)
		}
		b.took[w.Name] = max(b.took[w.Name], time.Since(begin))
	}
	return nil
}

// begin opens the report.
func (b *bench) begin(ctx context.Context) {
	rep := &Report{
		Commit: commit(ctx), Started: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(ctx, b.Rig),
		Settings: b.settings, Sidecar: b.o.Set, Scale: b.o.Scale, Repetitions: b.o.Repetitions, Rate: b.o.Rate, LeftOut: map[string]string{},
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
	if w.Kind == Live || w.Kind == Beside || w.Kind == Mutual {
		names = b.order(n, "none")
	}
	one := b.alone
	switch w.Kind {
	case Fill:
		one = b.fill
		names = slices.DeleteFunc(names, func(c string) bool { return c == "pglogical" })
	case Mutual:
		one = b.both
		names = b.mutual(names)
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

// mutual leaves out who cannot replicate both ways on this server.
func (b *bench) mutual(names []string) []string {
	if major, _, _ := strings.Cut(b.PGVersion, "."); len(major) > 2 || major >= strconv.Itoa(nativeBothWays) {
		return names
	}
	return slices.DeleteFunc(names, func(c string) bool {
		if c == "native" {
			b.rep.LeftOut["native in W8"] = fmt.Sprintf("origin = none needs PostgreSQL %d", nativeBothWays)
		}
		return c == "native"
	})
}

// note keeps a run and tells about it.
func (b *bench) note(r Run) {
	b.rep.Runs = append(b.rep.Runs, r)
	switch {
	case r.Error != "":
		b.say("  %-10s FAILED: %s", r.Contender, r.Error)
	case r.Latency != nil:
		b.say("  %-10s p50 %.2f ms, p95 %.2f, p99 %.2f, max %.2f (%d probes)", r.Contender, r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max, r.Latency.Probes)
	case r.Both != nil:
		t := r.Both
		b.say("  %-10s %.0f and %.0f transactions/s, lag %.2f s, %d rows differ%s", r.Contender, t.TPS[0], t.TPS[1], r.Lag, t.Differ, t.Stopped)
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

// targets are the databases of all peers of a contender in the job at hand.
func (b *bench) targets(contender string) []place {
	out := []place{{b.Target, b.target(contender)}}
	for i := 1; i < b.peers; i++ {
		out = append(out, place{b.Others[i-1], b.target(contender)})
	}
	return out
}

// openSource makes the source database of a new job.
func (b *bench) openSource(ctx context.Context, w Workload) error {
	b.jobs++
	b.source = fmt.Sprintf("job%d", b.jobs)
	b.base, b.peers = w.Base(b.o), max(w.Peers, 1)
	if err := b.ready(ctx, b.peers); err != nil {
		return err
	}
	if err := b.database(ctx, b.Source, b.source, b.base); err != nil {
		return err
	}
	return b.exec(ctx, b.Source, b.source, publicationSQL(b.base.tables()))
}

func (b *bench) openTarget(ctx context.Context, w Workload, name string) (Contender, error) {
	targets, base := b.targets(name), w.Base(b.o)
	if w.Kind == Fill {
		base.Rows = 0
	}
	for _, t := range targets {
		if err := b.database(ctx, t.c, t.db, base); err != nil {
			return nil, err
		}
	}
	return newContender(name, site{rig: b.Rig, source: b.source, target: targets[0].db, more: targets[1:], tables: base.tables(), set: b.o.Set, fill: w.Kind == Fill, both: w.Kind == Idle, binary: b.binary(name)})
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
	if err := conn.QueryRow(ctx, b.base.hashQuery()).Scan(&h); err != nil {
		return "", fmt.Errorf("hash rows: %w", err)
	}
	return h, nil
}
