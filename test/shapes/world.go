package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Limits on a busy machine.
const (
	inStep = 5 * time.Minute
	// tidy is what may take place after the regions are in step: parked changes whose cause is gone.
	tidy = 90 * time.Second
)

// world is the regions, and what was drawn.
type world struct {
	o      options
	rnd    *rand.Rand
	kinds  []kind
	tables []*table
	fleet  *harness.Fleet
	pair   *harness.Pair
	stop   []func() // ends the restarting of sidecars
	story
}

func newWorld(ctx context.Context, o options, out io.Writer) (_ *world, err error) {
	w := &world{o: o, rnd: rand.New(rand.NewPCG(o.seed, 0)), kinds: kinds(), story: story{began: time.Now(), out: out, loud: o.loud}}
	for n := range o.tables {
		t := drawTable(w.rnd, n, w.kinds)
		w.tables = append(w.tables, t)
		w.say("%s", t.create)
	}
	if w.fleet, err = harness.NewFleet(harness.ClusterConfig{Settings: map[string]string{
		"track_commit_timestamp": []string{"on", "off"}[o.seed%2], "wal_sender_timeout": "'10s'",
	}}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	settings := map[string]string{"tables.rules": rules(w.tables), "log.level": "info"}
	if o.restorer {
		settings["apply.privileges"] = "restorer"
	}
	w.pair, err = w.fleet.Pair(ctx, "shapes", harness.PairOptions{Three: o.regions == 3, Settings: settings})
	if err != nil {
		return nil, err
	}
	for _, r := range w.pair.Regions() {
		if _, err := r.Cluster.PSQL(ctx, r.Database, schemaSQL(w.tables)); err != nil {
			return nil, fmt.Errorf("make tables: %w", err)
		}
	}
	if err := w.pair.Setup(ctx); err != nil {
		return nil, err
	}
	for _, r := range w.pair.Regions() {
		if err := r.Sidecar.Start(); err != nil {
			return nil, err
		}
	}
	if err := w.pair.WaitReady(ctx, time.Minute); err != nil {
		return nil, err
	}
	for _, r := range w.pair.Regions() {
		w.stop = append(w.stop, r.Sidecar.Revive(func(code int) { w.say("sidecar %s ended with code %d", r.Side, code) }))
	}
	return w, nil
}

// live is the whole run: writers, alterations and faults; then the questions, once more after a cut.
func (w *world) live(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return fmt.Errorf("before the writers: %w", err)
	}
	writing, end := context.WithTimeout(ctx, w.o.span)
	defer end()
	var all sync.WaitGroup
	var altered, broken error
	writers := w.write(writing, &all)
	if w.o.ddl {
		a := &alterer{rnd: rand.New(rand.NewPCG(w.o.seed, 7)), tables: w.tables, kinds: w.kinds, say: w.say}
		all.Go(func() { altered = a.run(writing, w.pair.Regions(), 800*time.Millisecond) })
	}
	if w.o.faults {
		all.Go(func() { broken = w.disturb(writing) })
	}
	all.Wait()
	for _, x := range writers {
		w.say("a writer of %s: %d transactions, refused %v", x.region.Side, x.done, x.refused)
		for _, code := range []string{"42846", "42601", "42804", "22008", "42703", "22P02", "42883"} {
			if x.lastWords[code] != "" {
				w.say("  %s: %s", code, x.lastWords[code])
			}
		}
	}
	if err := errors.Join(altered, broken, w.whole(ctx)); err != nil {
		return err
	}
	if err := w.touch(ctx); err != nil {
		return err
	}
	if err := w.ask(ctx); err != nil {
		return fmt.Errorf("after the writers: %w", err)
	}
	w.say("equal after the writers")
	for _, l := range w.pair.NatsLinks() {
		l.Cut()
	}
	for n := range w.o.keys {
		for i, r := range w.pair.Regions() {
			x := newWriter(r, w.o.seed, uint64(1000+10*n+i), w.tables, w.kinds, w.o.keys)
			for _, t := range w.tables {
				for range 2 {
					if err := x.transaction(ctx, t); err != nil {
						x.note(ctx, err)
					}
				}
			}
			x.close()
		}
	}
	w.pair.HealAll()
	if err := w.free(ctx); err != nil {
		return err
	}
	if err := w.ask(ctx); err != nil {
		return fmt.Errorf("after the probe: %w", err)
	}
	return nil
}

// begin writes a row of each table in each region, and waits until all have crossed: columns that pass their
// names on are told apart from the first change of their table on (docs/reliability.md).
func (w *world) begin(ctx context.Context) error {
	for i, r := range w.pair.Regions() {
		x := newWriter(r, w.o.seed, uint64(100+i), w.tables, w.kinds, w.o.keys)
		defer x.close()
		for _, t := range w.tables {
			if err := x.first(ctx, t, i); err != nil {
				return fmt.Errorf("write a first row of %s in %s: %w", t.name, r.Side, err)
			}
		}
	}
	return w.pair.WaitInStep(ctx, inStep)
}

// free lets go of all second unique values, which may clash between the regions for as long as they are held.
func (w *world) free(ctx context.Context) error {
	for _, r := range w.pair.Regions() {
		for _, t := range w.tables {
			if !t.unique {
				continue
			}
			if _, err := r.Cluster.PSQL(ctx, r.Database, "update "+t.name+" set "+strings.Join(append(rising(t), "uq = null"), ", ")); err != nil {
				return fmt.Errorf("free the unique values of %s in %s: %w", t.name, r.Side, err)
			}
		}
	}
	return nil
}

func (w *world) write(ctx context.Context, all *sync.WaitGroup) []*writer {
	var out []*writer
	for i, r := range w.pair.Regions() {
		for n := range 2 {
			x := newWriter(r, w.o.seed, uint64(10*(i+1)+n), w.tables, w.kinds, w.o.keys)
			out = append(out, x)
			all.Go(func() { x.run(ctx, 25*time.Millisecond) })
		}
	}
	return out
}

// touch updates a row of each table in each region, so that the newest description of each table has crossed.
func (w *world) touch(ctx context.Context) error {
	for i, r := range w.pair.Regions() {
		for n, t := range w.tables {
			set := append(rising(t), fmt.Sprintf("mark = 'touched %d %d'", i, n))
			if t.unique {
				set = append(set, "uq = null")
			}
			sql := "update " + t.name + " set " + strings.Join(set, ", ")
			if _, err := r.Cluster.PSQL(ctx, r.Database, sql); err != nil {
				return fmt.Errorf("touch %s in %s: %w", t.name, r.Side, err)
			}
		}
	}
	return nil
}

// disturb breaks one thing after the other until the context ends.
func (w *world) disturb(ctx context.Context) error {
	r := rand.New(rand.NewPCG(w.o.seed, 9))
	regions := w.pair.Regions()
	clean := context.WithoutCancel(ctx)
	for harness.Pause(ctx, time.Duration(500+r.IntN(2500))*time.Millisecond) == nil {
		x := regions[r.IntN(len(regions))]
		long := time.Duration(300+r.IntN(3000)) * time.Millisecond
		switch r.IntN(6) {
		case 5:
			w.say("resync at %s", x.Side)
			if got, err := x.Sidecar.CLI(clean, "resync"); err != nil || got.Code != 0 {
				w.say("  it was refused: %d %s %v", got.Code, got.Stderr, err)
			}
		case 0, 1:
			w.say("cut for %s", long)
			for _, l := range w.pair.NatsLinks() {
				l.Cut()
			}
			_ = harness.Pause(ctx, long)
			w.pair.HealAll()
		case 2, 3:
			w.say("kill sidecar %s", x.Side)
			x.Sidecar.Kill()
		case 4:
			w.say("crash server %s", x.Side)
			if err := x.Cluster.Stop(clean, harness.StopImmediate, time.Minute); err != nil {
				return err
			}
			if err := x.Cluster.Start(clean); err != nil {
				return err
			}
		}
	}
	return nil
}

// whole ends all faults.
func (w *world) whole(ctx context.Context) error {
	w.pair.HealAll()
	return harness.Poll(ctx, 3*time.Minute, time.Second, func(ctx context.Context) (bool, string, error) {
		if err := w.pair.WaitReady(ctx, time.Minute); err != nil {
			return false, err.Error(), nil // a sidecar that was killed last may not be up again yet
		}
		return true, "", nil
	})
}

// ask waits until all regions are in step and says what is not as it should be then.
func (w *world) ask(ctx context.Context) error {
	if err := w.pair.WaitInStep(ctx, inStep); err != nil {
		return err
	}
	var last error
	err := harness.Poll(ctx, tidy, time.Second, func(ctx context.Context) (bool, string, error) {
		now := w.judge(ctx)
		if ctx.Err() == nil {
			last = now
		}
		return now == nil, "", nil
	})
	if err != nil {
		return errors.Join(last, err)
	}
	return nil
}

// judge asks everything once.
func (w *world) judge(ctx context.Context) error {
	var names []string
	for _, t := range w.tables {
		names = append(names, t.name)
	}
	errs := []error{w.pair.Equal(ctx, names...), w.sameLogs(ctx)}
	for _, r := range w.pair.Regions() {
		for _, side := range []string{"parked", "quarantine"} {
			text, err := r.Cluster.PSQL(ctx, r.Database, "select count(*) || ': ' || coalesce((select left(p::text, 600) from pgwaltz."+side+" p limit 1), '') from pgwaltz."+side)
			if err == nil && !strings.HasPrefix(text, "0: ") {
				err = fmt.Errorf("%s of %s: %s", side, r.Side, strings.TrimSpace(text))
			}
			errs = append(errs, err)
		}
		st, err := r.Sidecar.Status(ctx)
		if err == nil && st.State != status.Replicating {
			err = fmt.Errorf("region %s is %s", r.Side, st.State)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sameLogs: each conflict is in the logs of two regions.
func (w *world) sameLogs(ctx context.Context) error {
	in, what := map[string]int{}, map[string]string{}
	for _, r := range w.pair.Regions() {
		all, err := r.Conflicts(ctx)
		if err != nil {
			return err
		}
		for _, c := range all {
			if c.Type == "clock_skew" {
				continue
			}
			in[c.EventID]++
			what[c.EventID] = r.Side + ": " + c.String()
		}
	}
	n, example := 0, ""
	for id, count := range in {
		if count < 2 {
			n, example = n+1, what[id]
		}
	}
	if n > 0 {
		return fmt.Errorf("%d of %d conflicts are in one log only: %s", n, len(in), example)
	}
	return nil
}

// save keeps what one needs to understand a failed run.
func (w *world) save(ctx context.Context) error {
	dir := w.o.keep
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "story.txt"), []byte(strings.Join(w.lines, "\n")+"\n"), 0o644)}
	for _, r := range w.pair.Regions() {
		log, err := os.ReadFile(r.Sidecar.LogPath)
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, "sidecar."+r.Side+".log"), log, 0o644))
		errs = append(errs, r.Cluster.Dump(ctx, r.Database, filepath.Join(dir, "dump."+r.Side+".sql")))
		if _, body, err := r.Sidecar.HTTP(ctx, "GET", "/status"); err == nil {
			errs = append(errs, os.WriteFile(filepath.Join(dir, "status."+r.Side+".json"), []byte(body), 0o644))
		}
		log, err = os.ReadFile(r.Cluster.LogPath)
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, "postgres."+r.Side+".log"), log, 0o644))
	}
	return errors.Join(errs...)
}

func (w *world) close() {
	for _, stop := range w.stop {
		stop()
	}
	if w.pair != nil {
		w.pair.Close()
	}
	if w.fleet != nil {
		w.fleet.Close()
	}
}
