package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

const failpointEnv = "PGWALTZ_FAILPOINT"

// failpoints are the named places of the product where a process can be made to fail.
var failpoints = []string{
	"slot_after_read", "slot_before_status", "slot_after_status", "publisher_before_publish", "publisher_after_publish",
	"publisher_before_ack", "subscription_open", "subscription_before_deliver", "apply_after_first_dml", "apply_after_dml",
	"apply_before_commit", "apply_after_commit",
}

// faultKinds lists every kind of trouble.
func faultKinds() []*fault {
	return []*fault{
		{name: "sidecar-kill", why: "kill -9 of the sidecar at work", weight: 6, targets: onSidecar, do: killSidecar},
		{name: "sidecar-stop", why: "SIGTERM, exit code 0 expected", weight: 2, targets: onSidecar, do: stopSidecar},
		{name: "sidecar-freeze", why: "SIGSTOP, then SIGCONT", weight: 3, targets: onSidecar, do: freezeSidecar},
		{name: "sidecar-failpoint", why: "a named place fails: kill, error or sleep", weight: 6, targets: onSidecar, do: failSidecar},
		{name: "sidecar-takeover", why: "a standby waits while the sidecar at work is killed", weight: 2, targets: onSidecar, do: takeOver},
		{name: "sidecar-skew", why: "the sidecar's clock is set off (-clock)", weight: 3, needs: func(w *world) bool { return w.skewable }, targets: onSidecar, do: skewSidecar},
		{name: "store-delete", why: "the store of the embedded server is gone when the sidecar comes back", weight: 3, only: "embedded", targets: onSidecar, do: deleteStore},
		{name: "stream-delete", why: "the stream is deleted under the running sidecar", weight: 2, needs: hasNATS, targets: onNATS, do: deleteStream},
		{name: "slot-busy", why: "somebody else holds the slot when the sidecar comes back", weight: 2, targets: onSidecar, do: holdSlot},
		{name: "server-kill", why: "kill -9 of the postmaster", weight: 2, targets: onServer, do: stopServer(harness.StopKill)},
		{name: "server-crash", why: "immediate stop", weight: 2, targets: onServer, do: stopServer(harness.StopImmediate)},
		{name: "server-restart", why: "fast stop", weight: 1, targets: onServer, do: stopServer(harness.StopFast)},
		{name: "server-freeze", why: "SIGSTOP of every process of the server", weight: 2, targets: onServer, do: freezeServer},
		{name: "server-terminate", why: "pg_terminate_backend of every session of the sidecar", weight: 2, targets: onServer, do: terminate},
		{name: "server-lock", why: "a table is locked against the applier", weight: 2, targets: onServer, do: lockTable},
		{name: "server-skew", why: "the server's clock is set off", weight: 3, needs: func(w *world) bool { return w.sides[0].skew != "" }, targets: onServer, do: skewServer},
		{name: "link-cut", why: "connections are closed and refused", weight: 4, targets: onLink, do: cutLink},
		{name: "link-hold", why: "one way lets nothing through, nothing is closed", weight: 3, targets: onLink, do: holdLink},
		{name: "link-drop", why: "one way loses everything, then closes", weight: 2, targets: onLink, do: dropLink},
		{name: "link-flap", why: "connections are closed again and again", weight: 2, targets: onLink, do: flapLink},
		{name: "link-slow", why: "100 ms more each way", weight: 1, targets: onLink, do: slowLink},
		{name: "pglink-cut", why: "sidecar and database cannot reach each other", weight: 2, targets: onPGLink, do: cutPG},
		{name: "pglink-hold", why: "one way between sidecar and database lets nothing through", weight: 1, targets: onPGLink, do: holdPG},
		{name: "nats-kill", why: "kill -9 of the NATS server, or of one node", weight: 6, needs: hasNATS, targets: onNATS, do: killNATS},
		{name: "nats-freeze", why: "SIGSTOP of the NATS server, or of one node", weight: 3, needs: hasNATS, targets: onNATS, do: freezeNATS},
	}
}

func killSidecar(ctx context.Context, _ *world, s *side, d draw) error {
	k := s.leader(ctx)
	k.down()
	err := harness.Pause(ctx, d.length/2)
	k.up()
	return err
}

func stopSidecar(ctx context.Context, _ *world, s *side, d draw) error {
	k := s.leader(ctx)
	defer k.up()
	if err := k.stopSoft(ctx); err != nil {
		return err
	}
	return harness.Pause(ctx, d.length/4)
}

func freezeSidecar(ctx context.Context, _ *world, s *side, d draw) error {
	p := s.leader(ctx).s.Process()
	if p == nil || p.Freeze() != nil {
		return nil // it is being started at this moment
	}
	if d.n < 150 { // long enough for a standby, or the server, to give it up
		d.length += 12 * time.Second
	}
	err := harness.Pause(ctx, d.length)
	if p.Running() {
		_ = p.Continue()
	}
	return err
}

// failSidecar starts the sidecar with one or two failpoints set, gives them some time to
// fire, and starts it once more without.
func failSidecar(ctx context.Context, w *world, s *side, d draw) error {
	k := s.leader(ctx)
	action := []string{"kill", "kill", "error", "sleep=3s"}[d.kind%4]
	spec := fmt.Sprintf("%s:%s@%d", failpoints[d.n%len(failpoints)], action, 1+d.kind/20)
	w.say("  failpoint %s %s", s.Side, spec)
	k.down()
	k.s.Setenv(failpointEnv, spec)
	k.up()
	p := waitNewProcess(ctx, k)
	k.s.Setenv(failpointEnv, "") // the process after this one is well
	if p != nil {
		if action == "kill" {
			k.arm(p)
		}
		_, _ = p.Wait(ctx, 2*time.Second+d.length)
	}
	return nil
}

// waitNewProcess waits until the keeper has started a process.
func waitNewProcess(ctx context.Context, k *keeper) *harness.Process {
	_ = harness.Poll(ctx, 5*time.Second, 20*time.Millisecond, func(context.Context) (bool, string, error) {
		return k.s.Running(), "sidecar to be started", nil
	})
	return k.s.Process()
}

// takeOver starts the second sidecar when there is none, waits until it stands by, and
// kills the one at work. Afterwards both run, and the other one stands by.
func takeOver(ctx context.Context, w *world, s *side, d draw) error {
	if s.standby == nil {
		sc, err := w.pair.StandbyOf(s.Region)
		if err != nil {
			return err
		}
		s.standby = newKeeper(sc)
	}
	s.standby.up()
	k := s.leader(ctx)
	other := s.standby
	if k == s.standby {
		other = s.keeper
	}
	_ = harness.Poll(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		st, err := other.s.Status(ctx)
		return err == nil && st.State == status.Standby, "standby of " + s.Side, nil
	})
	k.down()
	err := harness.Pause(ctx, time.Second+d.length/2)
	k.up()
	return err
}

func deleteStore(ctx context.Context, _ *world, s *side, d draw) error {
	k := s.leader(ctx)
	k.down()
	defer k.up()
	if err := harness.DeleteStore(k.s.StoreDir()); err != nil {
		return err
	}
	return harness.Pause(ctx, d.length/4)
}

func deleteStream(ctx context.Context, w *world, s *side, _ draw) error {
	st, err := w.pair.Stream(s.Region)
	if err != nil {
		return nil // the server is down, or the stream is not there
	}
	defer st.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = st.Delete(ctx)
	return nil
}

// holdSlot takes both sidecars of the region away: one that waits would take the slot itself.
func holdSlot(ctx context.Context, _ *world, s *side, d draw) error {
	for _, k := range s.keepers() {
		k.down()
		defer k.up()
	}
	var p *harness.SlotHolder
	err := harness.Poll(ctx, 30*time.Second, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		var err error // another fault may have the server down
		p, err = s.Cluster.HoldSlot(ctx, s.Database, "pgwaltz_"+s.Name, "pgwaltz")
		return err == nil, fmt.Sprint("the slot: ", err), nil
	})
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := harness.Pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	for _, k := range s.keepers() {
		k.up()
	}
	return harness.Pause(ctx, d.length)
}

func stopServer(mode harness.StopMode) func(context.Context, *world, *side, draw) error {
	return func(ctx context.Context, _ *world, s *side, d draw) error {
		if err := s.Cluster.Stop(ctx, mode, 60*time.Second); err != nil {
			return err
		}
		if err := harness.Pause(ctx, d.length/4); err != nil {
			return err
		}
		return s.Cluster.Start(ctx)
	}
}

func freezeServer(ctx context.Context, _ *world, s *side, d draw) error {
	if err := s.Cluster.Freeze(); err != nil {
		return err
	}
	defer s.Cluster.Continue()
	return harness.Pause(ctx, d.length)
}

// asked runs a statement in the region; a server that does not answer is no failure.
func asked(ctx context.Context, s *side, sql string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := s.Cluster.Connect(ctx, s.Database)
	if err != nil {
		return
	}
	defer c.Close(ctx)
	_, _ = c.Exec(ctx, sql)
}

func terminate(ctx context.Context, _ *world, s *side, d draw) error {
	for range 1 + d.n%3 {
		asked(ctx, s, `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pgwaltz%'`)
		if err := harness.Pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func lockTable(ctx context.Context, w *world, s *side, d draw) error {
	t := w.tables[d.n%len(w.tables)]
	mode := []string{"share row exclusive", "access exclusive"}[d.kind%2]
	asked(ctx, s, fmt.Sprintf("begin; lock table %s in %s mode; select pg_sleep(%.1f); rollback", t.name, mode, d.length.Seconds()))
	return nil
}

func skewServer(ctx context.Context, w *world, s *side, d draw) error {
	off := time.Duration(d.n%120-60) * time.Second
	w.say("  clock of %s is off by %s", s.Side, off)
	s.setSkew(off)
	err := harness.Pause(ctx, 2*d.length)
	if d.kind%3 == 0 {
		s.setSkew(0)
	}
	return err
}

func cutLink(ctx context.Context, w *world, s *side, d draw) error {
	for _, l := range w.links(s) {
		l.Cut()
	}
	return w.healAfter(ctx, 2*d.length, w.links(s))
}

func (w *world) healAfter(ctx context.Context, d time.Duration, links []*proxy.Proxy) error {
	err := harness.Pause(ctx, d)
	for _, l := range links {
		l.Heal()
	}
	return err
}

func holdLink(ctx context.Context, w *world, s *side, d draw) error {
	for _, l := range w.links(s) {
		l.Hold(proxy.Direction(d.n % 2))
	}
	return w.healAfter(ctx, 2*d.length, w.links(s))
}

func dropLink(ctx context.Context, w *world, s *side, d draw) error {
	for _, l := range w.links(s) {
		l.Drop(proxy.Direction(d.n % 2))
	}
	return w.healAfter(ctx, d.length, w.links(s))
}

func flapLink(ctx context.Context, w *world, s *side, d draw) error {
	for range 2 + d.n%6 {
		for _, l := range w.links(s) {
			l.CloseConns()
		}
		if err := harness.Pause(ctx, d.length/8); err != nil {
			return err
		}
	}
	return nil
}

func slowLink(ctx context.Context, w *world, s *side, d draw) error {
	for _, l := range w.links(s) {
		l.Delay(100 * time.Millisecond)
	}
	return w.healAfter(ctx, d.length, w.links(s))
}

func cutPG(ctx context.Context, w *world, s *side, d draw) error {
	l := w.pair.Links[s.Side+"-pg"]
	if d.n%2 == 0 {
		l.CloseConns()
		return nil
	}
	l.Cut()
	return w.healAfter(ctx, d.length, []*proxy.Proxy{l})
}

func holdPG(ctx context.Context, w *world, s *side, d draw) error {
	l := w.pair.Links[s.Side+"-pg"]
	l.Hold(proxy.Direction(d.n % 2))
	return w.healAfter(ctx, d.length, []*proxy.Proxy{l})
}

func hasNATS(w *world) bool { return w.natsServers() != nil }

// natsServers are the server processes of NATS; none in the embedded topology.
func (w *world) natsServers() []*harness.NATS {
	if w.pair.NATS != nil {
		return []*harness.NATS{w.pair.NATS}
	}
	return w.pair.Nodes
}

func killNATS(ctx context.Context, w *world, _ *side, d draw) error {
	n := w.natsServers()[d.n%len(w.natsServers())]
	n.Kill()
	if err := harness.Pause(ctx, d.length/2); err != nil {
		return err
	}
	return n.Start(ctx)
}

func freezeNATS(ctx context.Context, w *world, _ *side, d draw) error {
	p := w.natsServers()[d.n%len(w.natsServers())].Process()
	if err := p.Freeze(); err != nil {
		return err
	}
	err := harness.Pause(ctx, d.length)
	_ = p.Continue()
	return err
}
