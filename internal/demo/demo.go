package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// demo is one run. Run is its only owner; what it starts, cleanUp ends.
type demo struct {
	opt     Options
	dir     string
	regions [2]*region
	link    *proxy.Proxy
	ledger  *ledger
	work    *workload
	prober  *prober
	monitor *monitor
	feed    *feed
	screen  *screen
	marks   [2]string // keys of the mark rows, see drain

	phase        phase
	started      time.Time
	unequalSince time.Time
}

// Run runs the demo and cleans up, also when ctx ends in the middle. The Summary is nil
// when it did not come to a result; its Problem method says whether the result is good.
func Run(ctx context.Context, opt Options) (*Summary, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if opt.Progress == nil {
		opt.Progress, opt.Size = io.Discard, nil
	}
	d := &demo{opt: opt, ledger: newLedger(), screen: &screen{out: opt.Progress, size: opt.Size}}
	summary, err := d.execute(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what broke because of it says nothing
	}
	d.screen.clear()
	left, cleanErr := d.cleanUp()
	if err = errors.Join(err, cleanErr); err != nil {
		return nil, err
	}
	summary.LeftBehind = left
	if opt.Keep {
		summary.Kept = d.dir
	}
	return summary, nil
}

func (d *demo) execute(ctx context.Context) (*Summary, error) {
	start := time.Now()
	if err := d.build(ctx); err != nil {
		return nil, err
	}
	d.screen.say("ready after %.1fs: %d operations per second for %s, the link is cut for %s", time.Since(start).Seconds(), d.opt.Rate, d.opt.Duration, d.opt.Cut)
	if err := d.prepare(ctx); err != nil {
		return nil, err
	}
	stopWatching := d.watch(ctx)
	err := d.play(ctx)
	var tables []tableResult
	stopped := time.Now()
	if err == nil {
		d.phase.set("draining")
		if !d.screen.terminal() {
			d.screen.say("writers have stopped, draining")
		}
		tables, err = d.drain(ctx)
	}
	drained := time.Since(stopped)
	if err = errors.Join(err, stopWatching()); err != nil {
		return nil, err
	}
	if d.screen.terminal() { // the whole run stays above the summary
		d.phase.set("done")
		d.screen.show(d.look())
		d.screen.keep()
	}
	return d.summarize(ctx, tables, drained)
}

// build makes the folder, the databases, the link and the sidecars, and waits until both
// replicate.
func (d *demo) build(ctx context.Context) error {
	bin, err := pgcluster.FindBin(d.opt.Bin)
	if err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "pgwaltz-demo-"); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	// The server's user must get through to its own folder below; those are closed.
	if err := os.Chmod(d.dir, 0o711); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	names := [2]string{"eu", "us"}
	d.screen.say("starting PostgreSQL for regions %s and %s below %s", names[0], names[1], d.dir)
	g, gctx := errgroup.WithContext(ctx)
	for i, name := range names {
		r := &region{name: name, peer: names[1-i], dir: filepath.Join(d.dir, name), people: &people{}}
		d.regions[i] = r
		g.Go(func() error {
			if err := os.Mkdir(r.dir, 0o711); err != nil {
				return fmt.Errorf("create folder: %w", err)
			}
			c, err := pgcluster.Create(gctx, pgcluster.Config{Bin: bin, Dir: filepath.Join(r.dir, "pg")})
			if err != nil {
				return fmt.Errorf("region %s: %w", r.name, err)
			}
			r.cluster = c
			if err := c.Start(gctx); err != nil {
				return fmt.Errorf("region %s: %w", r.name, err)
			}
			return r.createDatabase(gctx)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return d.startSidecars(ctx)
}

// startSidecars: the first region listens, the second dials through the link.
func (d *demo) startSidecars(ctx context.Context) error {
	d.screen.say("setting up and starting a sidecar for each")
	addrs, err := freeAddrs()
	if err != nil {
		return err
	}
	d.regions[0].http, d.regions[1].http = addrs[1], addrs[2]
	if d.link, err = proxy.New(addrs[0]); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for i, r := range d.regions {
		listen, dial := addrs[0], ""
		if i == 1 {
			listen, dial = "", d.link.Addr()
		}
		config, err := r.writeConfig(listen, dial)
		if err != nil {
			return err
		}
		log := filepath.Join(r.dir, "pgwaltz.log")
		g.Go(func() error {
			if err := runToEnd(gctx, d.opt.Executable, d.opt.Env, filepath.Join(r.dir, "setup.log"), "run pgwaltz setup for region "+r.name, "setup", "-config", config); err != nil {
				return err
			}
			var err error
			r.sidecar, err = startSidecar(gctx, d.opt.Executable, d.opt.Env, r.name, config, log)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, r := range d.regions {
		if err := r.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes everything that play and watch need.
func (d *demo) prepare(ctx context.Context) error {
	d.work = newWorkload(d.regions, d.ledger, d.opt.Rate, d.opt.Seed)
	d.prober = &prober{regions: d.regions, ledger: d.ledger, work: d.work, link: d.link, rng: rand.New(rand.NewPCG(d.opt.Seed, 3))}
	if err := d.insertMarks(ctx); err != nil {
		return err
	}
	d.started = time.Now()
	d.monitor = &monitor{regions: d.regions, work: d.work, link: d.link, started: d.started}
	d.feed = &feed{regions: d.regions, started: d.started, events: map[string]int{}}
	d.phase.set("warm-up")
	return nil
}

// watch runs the monitor, the feed and the screen until its result is called, or ctx ends.
func (d *demo) watch(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return d.monitor.run(ctx) })
	g.Go(func() error { return d.feed.run(ctx) })
	g.Go(func() error { return d.screen.run(ctx, d.look) })
	return func() error {
		cancel()
		return g.Wait()
	}
}

// play runs the workload, cuts and heals the link.
func (d *demo) play(ctx context.Context) error {
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	var writers errgroup.Group
	writers.Go(func() error { return d.work.run(writing) })
	writers.Go(func() error {
		if pause.For(writing, warmUp) != nil {
			return nil
		}
		return d.prober.run(writing)
	})
	err := d.script(ctx)
	stopWriting()
	return errors.Join(err, writers.Wait())
}

// script is the sequence of the phases. It ends early when a sidecar dies.
func (d *demo) script(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, r := range d.regions {
		stop := make(chan struct{})
		defer close(stop)
		go func() { // ends with script
			select {
			case <-r.sidecar.exited:
				cancel(r.sidecar.died())
			case <-stop:
			}
		}()
	}
	rest := d.opt.Duration - warmUp - d.opt.Cut
	steps := []struct {
		name  string
		begin func()
		lasts time.Duration
	}{
		{"warm-up", func() {}, warmUp},
		{"steady", func() {}, rest / 2},
		{"cut", func() {
			d.work.cutAt.Store(time.Now().UnixNano())
			d.link.Cut()
		}, d.opt.Cut},
		{"healed", func() {
			d.link.Heal()
			d.work.cutAt.Store(0)
		}, rest - rest/2},
	}
	for _, s := range steps {
		if s.name == "cut" && d.opt.Cut == 0 {
			continue
		}
		d.phase.set(s.name)
		s.begin()
		if err := pause.For(ctx, s.lasts); err != nil {
			return err
		}
	}
	d.phase.set("stopping")
	return nil
}

// insertMarks makes the two rows that drain updates.
func (d *demo) insertMarks(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(d.opt.Seed, 4))
	for i, r := range d.regions {
		d.marks[i] = newUUID(rng)
		c := &client{w: d.work, r: r, side: i, rng: rng}
		if !c.insertUser(ctx, d.marks[i], false) {
			return fmt.Errorf("insert mark row in region %s: refused: %v", r.name, d.work.snapshot().Refused)
		}
	}
	return nil
}

func (d *demo) look() view {
	v := view{Phase: d.phase.get(), Elapsed: time.Since(d.started), Total: d.opt.Duration, LinkUp: d.link.Up(), Carried: d.link.Carried(),
		Latency: d.prober.latency()}
	v.Ways, v.Samples = d.monitor.look()
	v.Newest, v.Conflicts, v.InBoth = d.feed.look(100) // more than fit on any screen
	return v
}

// freeAddrs returns three loopback addresses with different ports.
func freeAddrs() (addrs [3]string, err error) {
	for i := range addrs {
		port, err := pgcluster.FreePort()
		if err != nil {
			return addrs, err
		}
		addrs[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return addrs, nil
}
