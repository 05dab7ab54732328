package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// world is everything that runs: two or three regions with their servers, links and sidecars.
type world struct {
	o      options
	fleet  *harness.Fleet
	pair   *harness.Pair
	sides  []*side
	tables []*table
	j      *journal
	begun  time.Time
	// skewable: the clocks of the sidecars can be set off
	skewable bool

	mu    sync.Mutex
	lines []string // the faults, in order
	bad   []string // what a fault found out by itself, for example an exit code
}

// side is one region in the eyes of the faults.
type side struct {
	*harness.Region
	index   uint8
	keeper  *keeper
	standby *keeper // nil until the first take-over
	skew    string  // file that sets the clock of the server off; "" without libfaketime
}

// tracked says whether the server of region i keeps commit times: with four seeds in a row, two
// regions do in all four ways.
func tracked(seed uint64, i int) string {
	if seed>>i&1 == 1 {
		return "on"
	}
	return "off"
}

func newWorld(ctx context.Context, o options) (_ *world, err error) {
	w := &world{o: o, j: newJournal(), tables: chooseTables(o.tables, o.keys, o.giant), begun: time.Now()}
	if len(w.tables) == 0 {
		return nil, errors.New("choose tables: none matches")
	}
	if w.fleet, err = harness.NewFleet(harness.ClusterConfig{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if o.clock {
		if err := w.useSkewable(ctx); err != nil {
			fmt.Println("chaos: the clocks of the sidecars are left alone:", err)
		}
	}
	conf := make([]harness.ClusterConfig, o.regions)
	skews := make([]string, o.regions)
	for i := range conf {
		conf[i] = harness.ClusterConfig{Settings: map[string]string{
			"max_wal_size": "'2GB'", "log_min_messages": "warning", "wal_sender_timeout": "'10s'", "track_commit_timestamp": tracked(o.seed, i),
		}}
		skews[i], conf[i].Env = skewEnv(w.fleet.Room.Dir, i)
	}
	if err := w.fleet.Special(ctx, conf...); err != nil {
		return nil, err
	}
	w.pair, err = w.fleet.Pair(ctx, "chaos", harness.PairOptions{
		Topology: harness.Topology(o.topology), ProxyPG: true, Three: o.regions == 3,
		Settings: map[string]string{"tables.rules": tableRules(), "log.level": "info"},
	})
	if err != nil {
		return nil, err
	}
	for i, r := range w.pair.Regions() {
		w.sides = append(w.sides, &side{Region: r, index: uint8(i), skew: skews[i]})
		if _, err := r.Cluster.PSQL(ctx, r.Database, schemaSQL(w.tables)); err != nil {
			return nil, fmt.Errorf("make tables: %w", err)
		}
	}
	if err := w.pair.Setup(ctx); err != nil {
		return nil, err
	}
	for _, s := range w.sides {
		s.keeper = newKeeper(s.Sidecar)
	}
	return w, w.waitReady(ctx)
}

// waitReady waits until all regions see each other, whoever of their sidecars is at work.
func (w *world) waitReady(ctx context.Context) error {
	return harness.Poll(ctx, 60*time.Second, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		for _, s := range w.sides {
			st, err := s.status(ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			if st.Outbound == nil || len(st.Outbound.Peers) == 0 || slices.ContainsFunc(st.Outbound.Peers, func(p status.Peer) bool { return !p.Reachable }) {
				return false, "sidecar " + s.Side + " to see its peers: " + string(st.State), nil
			}
		}
		return true, "", nil
	})
}

// links are those that a fault of the region's link concerns: with three regions its own, and all of
// them for A, through which the others meet.
func (w *world) links(s *side) []*proxy.Proxy {
	all := w.pair.NatsLinks()
	if len(w.sides) == 2 || s.Side == "A" {
		return all
	}
	var own []*proxy.Proxy
	for name, l := range w.pair.Links {
		if strings.HasPrefix(name, s.Side+"-") && name != s.Side+"-pg" || name == "link" && s.Side == "B" {
			own = append(own, l)
		}
	}
	return own
}

// leader is the keeper of the sidecar that is at work, as far as one can tell.
func (s *side) leader(ctx context.Context) *keeper {
	if s.standby == nil || !s.standby.s.Running() {
		return s.keeper
	}
	if st, err := s.Sidecar.Status(ctx); err == nil && st.State != status.Standby {
		return s.keeper
	}
	return s.standby
}

// status is the account of the sidecar that is at work.
func (s *side) status(ctx context.Context) (*status.Status, error) {
	return s.leader(ctx).s.Status(ctx)
}

// keepers are those of both sidecars, or of the one there is.
func (s *side) keepers() []*keeper {
	if s.standby == nil {
		return []*keeper{s.keeper}
	}
	return []*keeper{s.keeper, s.standby}
}

// say notes a line of the story of this run.
func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf("%7.2fs %s", time.Since(w.begun).Seconds(), fmt.Sprintf(format, args...))
	w.mu.Lock()
	w.lines = append(w.lines, line)
	w.mu.Unlock()
	if w.o.verbose {
		fmt.Println(line)
	}
}

// complain notes something that makes the run fail.
func (w *world) complain(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.say("BAD: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, text)
}

// write starts the writers of all regions and waits for their end, which comes with ctx.
func (w *world) write(ctx context.Context) {
	var all sync.WaitGroup
	gap := time.Duration(float64(time.Second) * float64(w.o.workers) / float64(w.o.rate))
	var small []*table
	var bulk *table
	for _, t := range w.tables {
		if t.bulk {
			bulk = t
		} else {
			small = append(small, t)
		}
	}
	for _, s := range w.sides {
		for i := range w.o.workers {
			if len(small) == 0 {
				break
			}
			x := w.writer(s, uint64(i))
			x.tables = small
			all.Go(func() { x.run(ctx, gap); w.sayRefused(s, x) })
		}
		if bulk != nil {
			x := w.writer(s, 1000)
			all.Go(func() { x.giants(ctx, bulk, w.o.giants); w.sayRefused(s, x) })
		}
	}
	all.Wait()
}

func (w *world) sayRefused(s *side, x *writer) {
	if len(x.errs) > 0 {
		w.say("a writer of %s was refused: %v", s.Side, x.errs)
	}
}

func (w *world) writer(s *side, n uint64) *writer {
	return &writer{
		region: s.Region, side: s.index, j: w.j, tables: w.tables, errs: map[string]int{},
		rnd: rand.New(rand.NewPCG(w.o.seed, 100*uint64(s.index+1)+n)),
	}
}

// names are those of the tables that matter.
func (w *world) names() []string {
	var out []string
	for _, t := range w.tables {
		out = append(out, "public."+t.name)
	}
	return out
}

// calm ends every fault that may still be at work.
func (w *world) calm(ctx context.Context) error {
	w.pair.HealAll()
	for _, s := range w.sides {
		s.setSkew(0)
		s.Cluster.Continue()
		if !s.Cluster.Running() {
			if err := s.Cluster.Start(ctx); err != nil {
				return err
			}
		}
		for _, k := range s.keepers() {
			k.s.Setenv(failpointEnv, "")
			if p := k.s.Process(); p != nil && p.Running() {
				_ = p.Continue()
			}
		}
		s.keeper.up()
	}
	w.setClocksRight(ctx)
	return nil
}

func (w *world) close() {
	for _, s := range w.sides {
		if s == nil {
			continue
		}
		for _, k := range s.keepers() {
			if k != nil {
				k.close()
			}
		}
	}
	if w.pair != nil {
		w.pair.Close()
	}
	if w.fleet != nil {
		w.fleet.Close()
	}
	harness.RemoveTemplates()
	harness.RemoveProduct()
}

// save keeps what one needs to understand a failed run.
func (w *world) save(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	var errs []error
	copyFile := func(name, path string) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("save %s: %w", name, err))
		}
	}
	for _, s := range w.sides {
		for i, k := range s.keepers() {
			name := []string{"sidecar", "standby"}[i]
			if _, body, err := k.s.HTTP(ctx, "GET", "/status"); err == nil {
				errs = append(errs, os.WriteFile(filepath.Join(dir, name+"."+s.Side+".json"), []byte(body), 0o644))
			}
			k.want.Store(false)
			if p := k.s.Process(); p != nil && p.Signal(syscall.SIGQUIT) == nil {
				_, _ = p.Wait(ctx, 10*time.Second) // its last words are what every goroutine waits for
			}
			copyFile(name+"."+s.Side+".log", k.s.LogPath)
			copyFile(name+"."+s.Side+".yaml", filepath.Join(k.s.Home, "config.yaml"))
		}
		copyFile("postgres."+s.Side+".log", s.Cluster.LogPath)
		errs = append(errs, s.Cluster.Dump(ctx, s.Database, filepath.Join(dir, "dump."+s.Side+".sql")))
	}
	w.mu.Lock()
	story := strings.Join(w.lines, "\n") + "\n"
	w.mu.Unlock()
	errs = append(errs, os.WriteFile(filepath.Join(dir, "faults.txt"), []byte(story), 0o644), w.j.save(dir, w.tables))
	return errors.Join(errs...)
}
