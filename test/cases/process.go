package cases

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// startAll installs and starts all sidecars. With wait it also waits until they see each
// other; a pair that does not get that far is left to the steps that follow, because some
// cases start into trouble on purpose.
func (x *run) startAll(ctx context.Context, wait bool) error {
	for _, r := range x.p.Regions() {
		if !x.setup[r.Side] {
			if err := x.setupSides(ctx, r.Side); err != nil {
				return err
			}
		}
	}
	for _, r := range x.p.Regions() {
		if r.Sidecar.Running() {
			continue
		}
		if err := x.startSidecar(r); err != nil {
			return err
		}
	}
	if !wait {
		return nil
	}
	err := x.p.WaitReady(ctx, 30*time.Second)
	if errors.Is(err, harness.ErrTimeout) {
		x.note("start: %v", err)
		return nil
	}
	return err
}

func (x *run) startSidecar(r *harness.Region) error {
	if err := r.Sidecar.Start(); err != nil {
		return err
	}
	return x.state.watchFailpoint(x, r)
}

// process is the family start, stop, kill, restart, crash, freeze, cont.
func (x *run) process(ctx context.Context, s Step) error {
	if s.Name == "start" && (s.Arg == "" || s.Arg == "nowait") {
		return x.startAll(ctx, s.Arg == "")
	}
	return x.act(ctx, s.Name+" "+s.Arg)
}

// act executes one action, as it stands in directives and in the lists of chaos and
// shuffle: a verb, a target (sidecar.A, standby.A, pg.A, nats, a link) and options. It may
// be called from background goroutines.
func (x *run) act(ctx context.Context, text string) error {
	f := strings.Fields(text)
	if len(f) < 2 {
		return fmt.Errorf("act %q: want a verb and a target", text)
	}
	verb, target, opts := f[0], f[1], f[2:]
	kind, side, _ := strings.Cut(target, ".")
	if region, ok := strings.CutPrefix(target, "nats.leader."); ok {
		node, err := x.streamLeader(ctx, region)
		if err != nil {
			return err
		}
		x.vars["leader"], side = node, node
	}
	switch {
	case kind == "nats":
		n, err := x.natsServer(side)
		if err != nil {
			return err
		}
		return actNATS(ctx, n, verb, opts)
	case kind == "sidecar" || kind == "standby":
		r, err := x.p.Region(side)
		if err != nil {
			return err
		}
		sc := r.Sidecar
		if kind == "standby" {
			if sc = r.Standby; sc == nil {
				return fmt.Errorf("act %q: --@standby %s start comes first", text, side)
			}
		}
		return x.actSidecar(ctx, r, sc, verb, opts)
	case kind == "pg":
		k, err := x.cluster(side)
		if err != nil {
			return err
		}
		return actCluster(ctx, k, verb, opts)
	case verb == "cut" || verb == "hold" || verb == "drop" || verb == "close":
		return x.actLink(ctx, verb, target, opts)
	}
	return fmt.Errorf("act %q: unknown target %s", text, target)
}

func (x *run) cluster(side string) (*harness.Cluster, error) {
	if side == "C" && x.p.C == nil {
		if x.third == nil {
			return nil, errors.New("use the third cluster: --@pg.C create comes first")
		}
		return x.third, nil
	}
	r, err := x.p.Region(side)
	if err != nil {
		return nil, err
	}
	return r.Cluster, nil
}

// duration finds an option that is a duration.
func duration(opts []string, def time.Duration) time.Duration {
	for _, o := range opts {
		if d, err := time.ParseDuration(o); err == nil {
			return d
		}
	}
	return def
}

func (x *run) actSidecar(ctx context.Context, r *harness.Region, sc *harness.Sidecar, verb string, opts []string) error {
	p := sc.Process()
	if p == nil && verb != "start" && verb != "restart" {
		return fmt.Errorf("%s sidecar %s: it was never started", verb, r.Side)
	}
	switch verb {
	case "start":
		if sc == r.Sidecar {
			return x.startSidecar(r)
		}
		return sc.Start()
	case "kill":
		sc.Kill()
		return nil
	case "stop", "restart":
		if len(opts) > 0 && opts[0] == "kill" {
			sc.Kill()
		} else if sc.Running() {
			code, err := sc.Stop(ctx, duration(opts, 30*time.Second))
			if err != nil {
				return err
			}
			if code != 0 {
				return fmt.Errorf("%s sidecar %s: it ended with code %d", verb, r.Side, code)
			}
		}
		if verb == "restart" {
			return x.startSidecar(r)
		}
		return nil
	case "signal":
		return signalProcess(p, opts)
	case "cont":
		return p.Continue()
	case "freeze":
		if err := p.Freeze(); err != nil || len(opts) == 0 {
			return err
		}
		if err := harness.Pause(ctx, duration(opts, time.Second)); err != nil {
			return err
		}
		return p.Continue()
	}
	return fmt.Errorf("act on sidecar %s: unknown verb %s", r.Side, verb)
}

func actCluster(ctx context.Context, k *harness.Cluster, verb string, opts []string) error {
	mode := harness.StopFast
	for _, o := range opts {
		switch m := harness.StopMode(o); m {
		case harness.StopSmart, harness.StopFast, harness.StopImmediate, harness.StopKill:
			mode = m
		}
	}
	limit := duration(opts, 60*time.Second)
	switch verb {
	case "start":
		for _, o := range opts {
			if o == "nowait" {
				return k.StartNoWait()
			}
		}
		return k.Start(ctx)
	case "stop":
		return k.Stop(ctx, mode, limit)
	case "kill":
		return k.Stop(ctx, harness.StopKill, limit)
	case "crash":
		if err := k.Stop(ctx, harness.StopImmediate, limit); err != nil {
			return err
		}
		return k.Start(ctx)
	case "restart":
		if err := k.Stop(ctx, mode, limit); err != nil {
			return err
		}
		return k.Start(ctx)
	case "freeze":
		if err := k.Freeze(); err != nil || len(opts) == 0 {
			return err
		}
		defer k.Continue()
		return harness.Pause(ctx, limit)
	case "cont":
		k.Continue()
		return nil
	case "ensure": // it may have ended by itself, on a full disk for example
		if k.Running() {
			return nil
		}
		return k.Start(ctx)
	}
	return fmt.Errorf("act on a cluster: unknown verb %s", verb)
}

// natsServer is the one server of the external topology, or a node of the cluster.
func (x *run) natsServer(node string) (*harness.NATS, error) {
	if node == "" {
		if x.p.NATS == nil {
			return nil, errors.New("act on nats: it runs only in the external topology; nats.1 to nats.3 are the nodes of a cluster")
		}
		return x.p.NATS, nil
	}
	i, err := strconv.Atoi(node)
	if err != nil || i < 1 || i > len(x.p.Nodes) {
		return nil, fmt.Errorf("act on nats.%s: the cluster has nodes 1 to %d", node, len(x.p.Nodes))
	}
	return x.p.Nodes[i-1], nil
}

func actNATS(ctx context.Context, n *harness.NATS, verb string, opts []string) error {
	switch verb {
	case "start":
		return n.Start(ctx)
	case "stop":
		return n.Stop(ctx)
	case "kill":
		n.Kill()
		return nil
	case "crash":
		n.Kill()
		return n.Start(ctx)
	case "restart":
		if err := n.Stop(ctx); err != nil {
			return err
		}
		return n.Start(ctx)
	case "freeze":
		if err := n.Process().Freeze(); err != nil || len(opts) == 0 {
			return err
		}
		if err := harness.Pause(ctx, duration(opts, time.Second)); err != nil {
			return err
		}
		return n.Process().Continue()
	case "cont":
		return n.Process().Continue()
	}
	return fmt.Errorf("act on nats: unknown verb %s", verb)
}

// server is --@pg.X: actions, and what only clusters can do.
func (x *run) server(ctx context.Context, side, arg string) error {
	f := strings.Fields(arg)
	if len(f) == 0 {
		return errors.New("act on a cluster: what?")
	}
	if side == "C" && f[0] == "create" && x.p.C == nil {
		return x.createThird(ctx)
	}
	k, err := x.cluster(side)
	if err != nil {
		return err
	}
	switch f[0] {
	case "set", "hba", "remount", "restore", "upgrade":
		x.dirty = true
	}
	switch f[0] {
	case "tmpfs", "waltmpfs":
		return nil // done when the case began
	case "clock":
		d, err := time.ParseDuration(strings.Join(f[1:], ""))
		if err != nil {
			return fmt.Errorf("read how far the clock is off: %w", err)
		}
		return k.SetClock(d)
	case "remount":
		var mb int
		if _, err := fmt.Sscanf(arg, "remount %d", &mb); err != nil {
			return fmt.Errorf("read size in MB: %w", err)
		}
		return k.Remount(mb)
	case "upgrade":
		return k.Upgrade(ctx)
	case "copy", "restore":
		name := "copy"
		if len(f) > 1 {
			name = f[1]
		}
		if f[0] == "copy" {
			return k.Copy(name)
		}
		return k.Restore(name)
	case "hba":
		return x.hba(ctx, k, strings.TrimSpace(strings.TrimPrefix(arg, "hba")))
	case "set":
		return x.setting(ctx, k, strings.TrimSpace(strings.TrimPrefix(arg, "set")))
	}
	return x.act(ctx, f[0]+" pg."+side+" "+strings.Join(f[1:], " "))
}

func (x *run) createThird(ctx context.Context) error {
	k, err := x.r.fleet.NewCluster(harness.ClusterConfig{Name: fmt.Sprintf("c%d", time.Now().UnixNano())})
	if err != nil {
		return err
	}
	x.third = k
	if err := k.Start(ctx); err != nil {
		return err
	}
	x.vars["dsn.C"] = k.DSN(x.p.Name)
	_, err = k.PSQL(ctx, "postgres", `create database "`+x.p.Name+`"`)
	return err
}

// setting changes a server setting for good and restarts the server when it must.
func (x *run) setting(ctx context.Context, k *harness.Cluster, text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("read setting %q: want name=value", text)
	}
	c, err := k.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !identRE.MatchString(name) {
		return fmt.Errorf("read setting %q: want name=value", text)
	}
	if _, err := c.Exec(ctx, "alter system set "+name+" = '"+strings.ReplaceAll(strings.Trim(value, "'"), "'", "''")+"'"); err != nil {
		return err
	}
	var kind string
	if err := c.QueryRow(ctx, "select context from pg_settings where name = $1", name).Scan(&kind); err != nil {
		return err
	}
	if kind == "postmaster" {
		_ = c.Close(ctx)
		if err := k.Stop(ctx, harness.StopFast, 60*time.Second); err != nil {
			return err
		}
		return k.Start(ctx)
	}
	_, err = c.Exec(ctx, "select pg_reload_conf()")
	return err
}

// signalProcess sends the signals named in opts: term, int, hup, and twice to repeat.
func signalProcess(p *harness.Process, opts []string) error {
	names := map[string]syscall.Signal{"term": syscall.SIGTERM, "int": syscall.SIGINT, "hup": syscall.SIGHUP, "quit": syscall.SIGQUIT}
	times := 1
	sig := syscall.SIGTERM
	for _, o := range opts {
		if s, ok := names[o]; ok {
			sig = s
		} else if o == "twice" {
			times = 2
		} else {
			return fmt.Errorf("send signal %q: unknown", o)
		}
	}
	for range times {
		if err := p.Signal(sig); err != nil {
			return err
		}
	}
	return nil
}

// hba puts a line in front of pg_hba.conf.
func (x *run) hba(ctx context.Context, k *harness.Cluster, line string) error {
	if err := k.PrependHBA(line); err != nil {
		return err
	}
	_, err := k.PSQL(ctx, "postgres", "\\o /dev/null\nselect pg_reload_conf()")
	return err
}
