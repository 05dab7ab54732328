package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// sample is what one window of the load showed.
type sample struct {
	tpmc    float64
	longest time.Duration // transaction of the application
	lag     time.Duration // behind the window, until a burst had arrived
	burst   time.Duration
	rss     [2]int64 // of both sidecars
	fds     [2]int
	idle    time.Duration // of a session of theirs, in a transaction
	errors  int
}

// windows is how many windows a soak has.
const windows = 10

// soak runs the load window by window and judges at the end.
func (w *world) soak(ctx context.Context, duration time.Duration, out io.Writer) error {
	if w.rows = burstRows; duration < 5*time.Minute {
		w.rows = shortRows
	}
	if _, err := w.takeBurst(ctx); err != nil { // everything is up and warm
		return err
	}
	span := max(duration/windows, 2*time.Second).Round(time.Second)
	var all []sample
	for n := range windows {
		s, err := w.window(ctx, span)
		if err != nil {
			return err
		}
		all = append(all, s)
		fmt.Fprintf(out, "window %2d: %6.0f tpmC, longest transaction %5.2f s, %d errors, caught up after %5.2f s, burst of %d rows %5.2f s, memory %d and %d MiB, descriptors %d and %d, idle in transaction %.2f s\n",
			n+1, s.tpmc, s.longest.Seconds(), s.errors, s.lag.Seconds(), w.rows, s.burst.Seconds(), s.rss[0]>>20, s.rss[1]>>20, s.fds[0], s.fds[1], s.idle.Seconds())
	}
	return errors.Join(judge(all), w.equal(ctx))
}

// window is the load for a while, then the time until all of it has arrived, then a burst alone.
func (w *world) window(ctx context.Context, span time.Duration) (s sample, err error) {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	var werr error
	watch.Go(func() { s.idle, werr = w.watchIdle(watching) })
	got, err := w.tool.Run(ctx, w.left, database, 4, span)
	stop()
	watch.Wait()
	if err = errors.Join(err, werr); err != nil {
		return s, err
	}
	s.tpmc, s.longest, s.errors = got.TpmC, got.Longest, got.Errors
	if s.lag, err = w.takeBurst(ctx); err != nil {
		return s, err
	}
	if s.burst, err = w.takeBurst(ctx); err != nil {
		return s, err
	}
	for i, sc := range w.pair.Sidecars() {
		if s.rss[i], s.fds[i], err = account(sc); err != nil {
			return s, err
		}
	}
	return s, nil
}

// watchIdle looks at the sessions of both regions until the context ends.
func (w *world) watchIdle(ctx context.Context) (longest time.Duration, err error) {
	clean := context.WithoutCancel(ctx)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	left, err := w.left.Connect(clean, database)
	if err != nil {
		return 0, err
	}
	defer left.Close(clean)
	right, err := w.right.Connect(clean, database)
	if err != nil {
		return 0, err
	}
	defer right.Close(clean)
	for {
		select {
		case <-ctx.Done():
			return longest, nil
		case <-tick.C:
		}
		a, err := idle(clean, left)
		if err != nil {
			return longest, err
		}
		b, err := idle(clean, right)
		if err != nil {
			return longest, err
		}
		longest = max(longest, a, b)
	}
}

// account is the resident memory and the number of descriptors of a sidecar.
func account(sc *harness.Sidecar) (rss int64, fds int, err error) {
	p := sc.Process()
	if p == nil || !p.Running() {
		return 0, 0, fmt.Errorf("sidecar %s has ended: %s", sc.Region, harness.TailFile(sc.LogPath, 4))
	}
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		return 0, 0, fmt.Errorf("count descriptors: %w", err)
	}
	return p.RSS(), len(list), nil
}

// What may grow between the first windows and the last ones. Other work on the machine makes
// single windows slow, so the best of three stands for each end.
const (
	slower  = 3               // times as long a burst, or as few transactions of the application
	maxLag  = 5 * time.Second // more behind at the end of a window
	moreMem = 96 << 20        // bytes
	moreFDs = 16              // descriptors
	maxIdle = 2 * time.Second // in a transaction
)

// judge holds the last windows against the first ones.
func judge(all []sample) error {
	n := min(3, len(all)/2)
	first, last := best(all[:n]), best(all[len(all)-n:])
	var errs []error
	if last.burst > slower*first.burst+time.Second {
		errs = append(errs, fmt.Errorf("a burst takes %.2f s, and took %.2f s", last.burst.Seconds(), first.burst.Seconds()))
	}
	if slower*last.tpmc < first.tpmc {
		errs = append(errs, fmt.Errorf("the application does %.0f tpmC, and did %.0f", last.tpmc, first.tpmc))
	}
	if last.lag > slower*first.lag+maxLag {
		errs = append(errs, fmt.Errorf("it catches up after %.2f s, and did after %.2f s", last.lag.Seconds(), first.lag.Seconds()))
	}
	for i, side := range []string{"left", "right"} {
		if last.rss[i] > first.rss[i]*3/2+moreMem {
			errs = append(errs, fmt.Errorf("the %s sidecar has %d MiB, and had %d", side, last.rss[i]>>20, first.rss[i]>>20))
		}
		if last.fds[i] > first.fds[i]+moreFDs {
			errs = append(errs, fmt.Errorf("the %s sidecar has %d descriptors, and had %d", side, last.fds[i], first.fds[i]))
		}
	}
	if last.idle > maxIdle {
		errs = append(errs, fmt.Errorf("a session was idle in a transaction for %.2f s", last.idle.Seconds()))
	}
	for i := range all {
		if all[i].errors > 0 {
			errs = append(errs, fmt.Errorf("the application got %d errors in window %d", all[i].errors, i+1))
		}
	}
	return errors.Join(errs...)
}

// best takes the lowest of each figure, and the highest throughput.
func best(of []sample) sample {
	b := of[0]
	for _, s := range of[1:] {
		b.burst, b.idle, b.lag, b.tpmc = min(b.burst, s.burst), min(b.idle, s.idle), min(b.lag, s.lag), max(b.tpmc, s.tpmc)
		for i := range s.rss {
			b.rss[i], b.fds[i] = min(b.rss[i], s.rss[i]), min(b.fds[i], s.fds[i])
		}
	}
	return b
}
