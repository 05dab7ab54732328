package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Runner runs cases one after another on shared clusters. Close it.
type Runner struct {
	// LogDir, when set, receives the logs of every case that failed.
	LogDir string
	// Verbose, when set, is called before each step.
	Verbose func(c *Case, s Step)
	// Topology forces one topology on every case that leaves it open.
	Topology harness.Topology

	fleet *harness.Fleet
}

// Result is the outcome of one case.
type Result struct {
	Case    *Case
	Err     error
	Elapsed time.Duration
	Notes   []string
}

// NewRunner finds PostgreSQL; it fails when there is none.
func NewRunner() (*Runner, error) {
	f, err := harness.NewFleet(harness.ClusterConfig{})
	if err != nil {
		return nil, err
	}
	return &Runner{fleet: f}, nil
}

// Close stops the clusters.
func (r *Runner) Close() { r.fleet.Close() }

// caseLimit bounds one case unless it sets its own with --@limit.
const caseLimit = 5 * time.Minute

// waitLimit is the limit of --@wait and of the waiting part of --@heal.
const waitLimit = 60 * time.Second

// run is the state of one case under way.
type run struct {
	r       *Runner
	c       *Case
	p       *harness.Pair
	third   *harness.Cluster
	vars    map[string]string
	state   *state
	dirty   bool // the clusters were changed: throw them away afterwards
	setup   map[string]bool
	pub     []string // alter publication statements for after setup
	audit   map[string][]expectation
	wait    time.Duration
	notes   []string
	mu      sync.Mutex // guards cleanup: background work starts things too
	cleanup []func()
}

// Run executes one case and cleans up after it. It never panics.
func (r *Runner) Run(ctx context.Context, c *Case) (res Result) {
	start := time.Now()
	res.Case = c
	defer func() { res.Elapsed = time.Since(start) }()
	if c.Err != nil {
		res.Err = c.Err
		return res
	}
	if s := wordsLeft(c.Steps); s != nil {
		res.Err = fmt.Errorf("line %d: words left: --@do %s", s.Line, s.Arg)
		return res
	}
	limit := caseLimit
	for _, s := range c.Steps {
		if s.Name != "limit" {
			continue
		}
		d, err := time.ParseDuration(s.Arg)
		if err != nil {
			res.Err = fmt.Errorf("line %d: read limit: %w", s.Line, err)
			return res
		}
		limit = d
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	x := &run{r: r, c: c, vars: map[string]string{}, state: newState(), setup: map[string]bool{}, audit: map[string][]expectation{}, wait: waitLimit}
	defer func() {
		if v := recover(); v != nil {
			res.Err = fmt.Errorf("harness panicked: %v\n%s", v, debug.Stack())
		}
		if res.Err == nil {
			res.Err = x.hygiene()
		}
		if res.Err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			res.Err = fmt.Errorf("case not done within %s: %w", limit, res.Err)
		}
		res.Notes = x.notes
		x.close(res.Err != nil)
	}()
	if err := x.open(ctx); err != nil {
		res.Err = err
		return res
	}
	res.Err = x.steps(ctx, c.Steps, startAt(c.Steps))
	return res
}

func wordsLeft(steps []Step) *Step {
	for i := range steps {
		if steps[i].Name == "do" {
			return &steps[i]
		}
		if s := wordsLeft(steps[i].Sub); s != nil {
			return s
		}
	}
	return nil
}

var badName = regexp.MustCompile(`[^a-z0-9]+`)

func (x *run) open(ctx context.Context) error {
	conf := map[string]harness.ClusterConfig{}
	o := harness.PairOptions{Topology: x.r.Topology}
	mentions(x.c.Steps, func(s Step) bool {
		switch {
		case s.Name == "topology":
			o.Topology = harness.Topology(s.Arg)
		case s.Name == "regions":
			o.Three = s.Arg == "3"
		case s.Name == "nats" && strings.HasPrefix(s.Arg, "tmpfs "):
			_, _ = fmt.Sscanf(s.Arg, "tmpfs %d", &o.NATSMB)
		case strings.HasPrefix(s.Name, "pg.") && strings.HasPrefix(s.Arg, "tmpfs "):
			var mb int
			_, _ = fmt.Sscanf(s.Arg, "tmpfs %d", &mb)
			conf[s.Name[3:]] = harness.ClusterConfig{TmpfsMB: mb, Fsync: true}
		case strings.HasPrefix(s.Name, "pg.") && strings.HasPrefix(s.Arg, "waltmpfs "):
			var mb int
			_, _ = fmt.Sscanf(s.Arg, "waltmpfs %d", &mb)
			conf[s.Name[3:]] = harness.ClusterConfig{WALTmpfsMB: mb, Fsync: true}
		case strings.HasPrefix(s.Name, "pg.") && strings.HasPrefix(s.Arg, "clock "):
			conf[s.Name[3:]] = harness.ClusterConfig{Clock: true}
		case strings.Contains(s.Arg, "A-pg") || strings.Contains(s.Arg, "B-pg") || strings.Contains(s.Arg, "C-pg"):
			o.ProxyPG = true
		}
		return false
	})
	if o.Topology == "" {
		o.Topology = harness.Embedded
		if mentions(x.c.Steps, needsServer) {
			o.Topology = harness.External
		}
	}
	if !o.Topology.Valid() {
		return fmt.Errorf("choose topology %q: it is embedded, external or cluster", o.Topology)
	}
	if len(conf) > 0 {
		x.dirty = true
		if err := x.r.fleet.Special(ctx, conf["A"], conf["B"]); err != nil {
			return err
		}
	}
	name := "c_" + badName.ReplaceAllString(strings.ToLower(x.c.ID), "_")
	p, err := x.r.fleet.Pair(ctx, name, o)
	if err != nil {
		x.dirty = true
		return err
	}
	x.p = p
	x.vars["listen"], x.vars["out"] = p.Listen, p.A.Sidecar.Home
	for _, r := range p.Regions() {
		x.vars["dsn."+r.Side] = r.Cluster.DSN(name)
		x.vars["cluster"] = strings.ReplaceAll(name, "_", "-")
		x.vars["db"] = name
		if st, err := os.Stat(r.Cluster.LogPath); err == nil {
			x.vars["logstart."+r.Cluster.LogPath] = strconv.FormatInt(st.Size(), 10)
		}
	}
	return nil
}

// needsServer: these steps need a NATS server that the harness can reach and stop.
func needsServer(s Step) bool {
	switch s.Name {
	case "nats", "stream":
		return true
	case "chaos", "shuffle", "kill", "stop", "start", "freeze", "cont":
		return regexp.MustCompile(`\bnats\b`).MatchString(s.Arg)
	case "let":
		return strings.Contains(s.Arg, ":= stream ")
	case "cut", "heal", "throttle", "delay", "lose", "flap", "dropacks":
		return strings.Contains(s.Arg, "-nats")
	}
	return false
}

func (x *run) steps(ctx context.Context, steps []Step, start int) error {
	for i := 0; i <= len(steps); i++ {
		if i == start {
			if err := x.startAll(ctx, true); err != nil {
				return err
			}
		}
		if i == len(steps) {
			break
		}
		s := steps[i]
		if s.Name == "audit" {
			// Neighbouring lines together say what the log holds.
			n := 1
			for i+n < len(steps) && steps[i+n].Name == "audit" {
				n++
			}
			if err := x.auditSteps(ctx, steps[i:i+n]); err != nil {
				return fmt.Errorf("line %d: %w", s.Line, err)
			}
			i += n - 1
			continue
		}
		if err := x.step(ctx, s); err != nil {
			var at *stepError
			if errors.As(err, &at) {
				return err
			}
			return &stepError{s.Line, s.Name, err}
		}
	}
	return nil
}

// stepError says where a case failed; nested steps keep the innermost place.
type stepError struct {
	line int
	name string
	err  error
}

func (e *stepError) Error() string { return fmt.Sprintf("line %d --@%s: %v", e.line, e.name, e.err) }
func (e *stepError) Unwrap() error { return e.err }

var varRE = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_.]*)\}`)

// expand replaces ${name} of known variables; anything else stays as it is.
func (x *run) expand(s string) string {
	return varRE.ReplaceAllStringFunc(s, func(m string) string {
		if v, ok := x.vars[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}

func (x *run) expandStep(s Step) Step {
	s.Arg, s.Body = x.expand(s.Arg), x.expand(s.Body)
	if s.Expect != nil {
		e := x.expand(*s.Expect)
		s.Expect = &e
	}
	return s
}

func (x *run) note(format string, args ...any) {
	x.notes = append(x.notes, fmt.Sprintf(format, args...))
}

// later registers what must be ended with the case, newest first.
func (x *run) later(fn func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cleanup = append(x.cleanup, fn)
}

func (x *run) close(failed bool) {
	for i := len(x.cleanup) - 1; i >= 0; i-- {
		x.cleanup[i]()
	}
	ctx := context.Background()
	if x.p != nil {
		if failed && x.r.LogDir != "" {
			x.keepLogs()
		}
		name := x.p.Name
		x.p.Close()
		if x.third != nil {
			x.third.Close()
		}
		for _, r := range x.p.Regions() {
			r.Cluster.Continue()
			x.dirty = x.dirty || !r.Cluster.Running()
		}
		x.r.fleet.Recycle(ctx, name, x.dirty)
		return
	}
	if x.dirty {
		x.r.fleet.Discard()
	}
}

func (x *run) keepLogs() {
	dir := filepath.Join(x.r.LogDir, x.c.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	save := func(name, path string) {
		if data, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
	}
	for _, r := range x.p.Regions() {
		save("sidecar."+r.Side+".log", r.Sidecar.LogPath)
		save("setup."+r.Side+".log", filepath.Join(r.Sidecar.Home, "setup.log"))
		save("config."+r.Side+".yaml", filepath.Join(r.Sidecar.Home, "config.yaml"))
		save("postgres."+r.Side+".log", r.Cluster.LogPath)
		if r.Standby != nil {
			save("standby."+r.Side+".log", r.Standby.LogPath)
		}
		if r.Sidecar.Running() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			if _, body, err := r.Sidecar.HTTP(ctx, "GET", "/status"); err == nil {
				_ = os.WriteFile(filepath.Join(dir, "status."+r.Side+".json"), []byte(body), 0o644)
			}
			cancel()
		}
	}
	if x.p.NATS != nil {
		save("nats.log", x.p.NATS.Log)
	}
	for i, n := range x.p.Nodes {
		save(fmt.Sprintf("nats%d.log", i+1), n.Log)
	}
}

// hygiene looks for what no case may leave behind: a panic of the product.
func (x *run) hygiene() error {
	if x.p == nil {
		return nil
	}
	for _, r := range x.p.Regions() {
		for _, s := range []*harness.Sidecar{r.Sidecar, r.Standby} {
			if s == nil {
				continue
			}
			if line, err := harness.Panicked(s.LogPath); err != nil || line != "" {
				return fmt.Errorf("sidecar %s panicked: %s", r.Side, line)
			}
		}
	}
	return nil
}
