package cases

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// step executes one directive.
func (x *run) step(ctx context.Context, s Step) error {
	if x.r.Verbose != nil {
		x.r.Verbose(x.c, s)
	}
	if s.Name == "repeat" || s.Name == "foreach" {
		return x.loop(ctx, s)
	}
	s = x.expandStep(s)
	switch s.Name {
	case "topology", "regions", "limit", "nostart":
		return nil // read before the case began
	case "both", "A", "B", "C":
		return x.section(ctx, s)
	case "A?", "B?", "C?":
		return x.query(ctx, s)
	case "std":
		return x.std(ctx, s.Arg)
	case "pub", "pubtable":
		return x.publication(ctx, s)
	case "err":
		return x.sqlError(ctx, s.Arg)
	case "start", "stop", "kill", "restart", "crash", "freeze", "cont":
		return x.process(ctx, s)
	case "signal", "ensure":
		return x.act(ctx, s.Name+" "+s.Arg)
	case "setup":
		return x.setupSides(ctx, s.Arg)
	case "wait":
		return x.waitStep(ctx, s.Arg)
	case "cut", "heal", "throttle", "delay", "lose", "flap", "dropacks":
		return x.linkStep(ctx, s)
	case "eq":
		return x.equal(ctx, s.Arg)
	case "pg.A", "pg.B", "pg.C":
		return x.server(ctx, s.Name[3:], s.Arg)
	case "nats":
		if f := strings.Fields(s.Arg); len(f) == 2 && x.p.NATS != nil {
			switch f[0] {
			case "tmpfs":
				return nil // done when the case began
			case "remount":
				mb, err := strconv.Atoi(f[1])
				if err != nil {
					return fmt.Errorf("read size in MB: %w", err)
				}
				return x.p.NATS.Tmpfs(mb)
			}
		}
		return x.act(ctx, strings.TrimSpace(s.Arg+" nats"))
	case "paired":
		return x.paired(ctx, s.Arg)
	case "config", "env", "limits", "failpoint", "exit", "cli", "resync", "standby", "rss":
		return x.sidecarStep(ctx, s)
	case "slot", "stream", "store":
		return x.surgery(ctx, s)
	case "session":
		return x.session(ctx, s.Arg)
	case "load":
		return x.load(ctx, s.Arg)
	case "poll":
		return x.poll(ctx, s.Arg)
	case "chaos":
		return x.chaos(ctx, s.Arg)
	case "shuffle":
		return x.shuffle(ctx, s.Arg)
	case "storm":
		return x.storm(ctx, s.Arg)
	case "let", "assert", "status", "metric", "log", "pglog", "http":
		return x.check(ctx, s)
	case "pause":
		d, err := time.ParseDuration(s.Arg)
		if err != nil {
			return fmt.Errorf("read duration: %w", err)
		}
		return harness.Pause(ctx, d)
	}
	return fmt.Errorf("unknown directive --@%s", s.Name)
}

// loop runs nested steps: repeat N [as i], foreach x in a b c.
func (x *run) loop(ctx context.Context, s Step) error {
	f := strings.Fields(x.expand(s.Arg))
	name, values := "i", []string(nil)
	switch {
	case s.Name == "repeat" && (len(f) == 1 || len(f) == 3 && f[1] == "as"):
		n, err := strconv.Atoi(f[0])
		if err != nil {
			return fmt.Errorf("read count: %w", err)
		}
		if len(f) == 3 {
			name = f[2]
		}
		for i := range n {
			values = append(values, strconv.Itoa(i+1))
		}
	case s.Name == "foreach" && len(f) >= 3 && f[1] == "in":
		name, values = f[0], f[2:]
	default:
		return fmt.Errorf("read loop %q: want repeat N [as x], or foreach x in a b c", s.Arg)
	}
	for _, v := range values {
		x.vars[name] = v
		if err := x.steps(ctx, s.Sub, -1); err != nil {
			return fmt.Errorf("%s=%s: %w", name, v, err)
		}
	}
	return nil
}

// regions reads both (all of them), or one region or several: A or A,C.
func (x *run) regions(side string) ([]*harness.Region, error) {
	if side == "both" {
		return x.p.Regions(), nil
	}
	var out []*harness.Region
	for _, one := range strings.Split(side, ",") {
		r, err := x.p.Region(one)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// cutSide splits "A: rest" or "A rest".
func cutSide(arg string) (side, rest string) {
	side, rest, _ = strings.Cut(arg, " ")
	if s, r, ok := strings.Cut(arg, ":"); ok && !strings.Contains(s, " ") {
		side, rest = s, r
	}
	return strings.TrimSpace(side), strings.TrimSpace(rest)
}
