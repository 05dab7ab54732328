package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

func main() {
	harness.RunChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	fmt.Printf("chaos: seed %d, %s, topology %s\n", o.seed, o.duration, o.topology)
	w, err := newWorld(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2
	}
	defer w.close()
	if w.sides[0].skew == "" {
		fmt.Println("chaos: libfaketime is not installed: clocks of servers are left alone")
	}
	v := &verdicts{}
	if o.cost > 0 {
		w.cost(ctx, v)
	} else {
		w.play(ctx, v)
	}
	if v.failed > 0 && o.keep != "" {
		dir := filepath.Join(o.keep, fmt.Sprintf("seed-%d", o.seed))
		if err := w.save(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
		fmt.Printf("chaos: logs, dumps and journal are in %s\n", dir)
	} else if v.failed > 0 {
		w.lastWords(context.Background())
	}
	fmt.Printf("chaos: seed %d after %s: %d passed, %d failed\n", o.seed, time.Since(w.begun).Round(time.Second), v.passed, v.failed)
	if v.failed > 0 {
		return 1
	}
	return 0
}

// play is the four phases.
func (w *world) play(ctx context.Context, v *verdicts) {
	busy, cancel := context.WithTimeout(ctx, w.o.duration)
	defer cancel()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.write(busy)
	}()
	counts := w.breakThings(busy)
	<-written
	fmt.Printf("chaos: %s\nchaos: faults: %s\n", w.j, describeCounts(counts))
	if ctx.Err() != nil {
		v.add("the run came to its end", ctx.Err())
		return
	}
	w.say("faults end")
	if err := w.calm(ctx); err != nil {
		v.add("everything starts again", err)
		return
	}
	calm := time.Now()
	err := w.waitReady(ctx)
	if err == nil {
		err = w.pair.WaitInStep(ctx, w.o.drain)
	}
	v.add("both regions come into step", err)
	if err == nil {
		v.add("secondary keys are released", w.release(ctx, w.o.drain))
		v.add("both regions stay in step", w.settle(ctx, w.o.drain))
		fmt.Printf("chaos: in step %s after the last fault\n", time.Since(calm).Round(time.Second))
	}
	w.askAll(ctx, v, "")
	if err == nil {
		if err := w.probe(ctx); err == nil {
			v.add("probe: both regions come into step", w.settle(ctx, w.o.drain))
		} else {
			v.add("probe", err)
		}
		w.askAll(ctx, v, "probe: ")
	}
	w.mu.Lock()
	bad := w.bad
	w.mu.Unlock()
	v.add("every fault went as it should", some(bad, "complaints"))
	for _, s := range w.sides {
		for _, k := range s.keepers() {
			fmt.Printf("chaos: sidecar of %s: exit codes %s, most memory %d MiB\n", s.Side, k, k.s.NotePeak()>>20)
		}
	}
}

// lastWords prints what the sidecars say of themselves, for a run that keeps no files.
func (w *world) lastWords(ctx context.Context) {
	for _, s := range w.sides {
		for _, k := range s.keepers() {
			if _, body, err := k.s.HTTP(ctx, "GET", "/status"); err == nil {
				fmt.Printf("chaos: status of %s: %s\n", s.Side, strings.Join(strings.Fields(body), " "))
			}
			fmt.Printf("chaos: log of %s ends: %s\n", s.Side, harness.TailFile(k.s.LogPath, 30))
		}
	}
}

func describeCounts(counts map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(out, ", ")
}
