package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// sidecarStep is what concerns one sidecar's settings, commands and resources.
func (x *run) sidecarStep(ctx context.Context, s Step) error {
	if s.Name == "exit" || s.Name == "rss" {
		return x.processCheck(ctx, s)
	}
	side, rest := cutSide(s.Arg)
	rs, err := x.regions(side)
	if err != nil {
		return err
	}
	for _, r := range rs {
		switch s.Name {
		case "config":
			k, v, ok := strings.Cut(rest, "=")
			if !ok {
				return fmt.Errorf("read setting %q: want key=value", rest)
			}
			if err := r.Sidecar.SetText(strings.TrimSpace(k), strings.TrimSpace(v)); err != nil {
				return err
			}
		case "env":
			k, v, ok := strings.Cut(rest, "=")
			if !ok {
				return fmt.Errorf("read environment %q: want NAME=value", rest)
			}
			r.Sidecar.Setenv(strings.TrimSpace(k), strings.TrimSpace(v))
		case "limits":
			if err := r.Sidecar.SetLimits(rest); err != nil {
				return err
			}
		case "failpoint":
			if err := x.failpoint(ctx, r, rest); err != nil {
				return err
			}
		case "cli":
			if err := x.cli(ctx, r, rest); err != nil {
				return err
			}
		case "resync":
			args := []string{}
			if rest != "" {
				args = strings.Fields(rest)
			}
			res, err := r.Sidecar.CLI(ctx, "resync", args...)
			if err != nil {
				return err
			}
			if res.Code != 0 {
				return fmt.Errorf("resync %s ended with code %d: %s", r.Side, res.Code, shorten(res.Stderr))
			}
		case "standby":
			if err := x.standby(ctx, r, rest); err != nil {
				return err
			}
		default:
			return fmt.Errorf("run --@%s: not a directive of a sidecar", s.Name)
		}
	}
	return nil
}

func (x *run) standby(ctx context.Context, r *harness.Region, verb string) error {
	sc, err := x.p.StandbyOf(r)
	if err != nil {
		return err
	}
	if verb == "" {
		verb = "start"
	}
	f := strings.Fields(verb)
	return x.actSidecar(ctx, r, sc, f[0], f[1:])
}

// failpoint reads `name:kill@7`, `off`, and `fired [within 30s]`.
func (x *run) failpoint(ctx context.Context, r *harness.Region, arg string) error {
	f := strings.Fields(arg)
	if len(f) == 0 {
		return errors.New("set failpoint: which?")
	}
	if f[0] == "fired" {
		return x.failpointFired(ctx, r, duration(f, 30*time.Second))
	}
	spec := f[0]
	if spec == "off" {
		spec = ""
	}
	running := r.Sidecar.Running()
	x.setFailpoint(r, spec)
	if !running {
		return nil
	}
	if err := x.actSidecar(ctx, r, r.Sidecar, "stop", nil); err != nil {
		return err
	}
	return x.startSidecar(r)
}

var cliRE = regexp.MustCompile(`(?s)^(.*?)(?:\s*=>\s*(\d+)\s*(.*))?$`)

// cli reads `command args => code [op text]`; the operator looks at stdout and stderr.
func (x *run) cli(ctx context.Context, r *harness.Region, arg string) error {
	m := cliRE.FindStringSubmatch(arg)
	f := strings.Fields(m[1])
	file := ""
	if n := len(f); n > 2 && f[n-2] == ">" {
		file, f = f[n-1], f[:n-2]
	}
	if len(f) == 0 {
		return errors.New("run the binary: which command?")
	}
	want := 0
	if m[2] != "" {
		want, _ = strconv.Atoi(m[2])
	}
	cond, err := parseCondition(m[3])
	if err != nil {
		return err
	}
	attempt := func(ctx context.Context) (string, error) {
		res, err := r.Sidecar.CLI(ctx, f[0], f[1:]...)
		if err != nil {
			return "", err
		}
		if file != "" {
			if err := os.WriteFile(file, []byte(res.Stdout), 0o600); err != nil {
				return "", fmt.Errorf("keep the output of %s: %w", f[0], err)
			}
		}
		out := res.Stdout + res.Stderr
		if res.Code != want {
			return fmt.Sprintf("code %d: %s", res.Code, shorten(out)), nil
		}
		if m[3] != "" && cond.value != "" && !cond.holds(out) {
			return fmt.Sprintf("output %q, want %s", shorten(out), cond), nil
		}
		return "", nil
	}
	return x.eventually(ctx, cond, attempt)
}

// eventually calls attempt until it has nothing to complain about any more, once when the
// condition sets no time; with hold it must stay so.
func (x *run) eventually(ctx context.Context, c condition, attempt func(context.Context) (complaint string, err error)) error {
	limit := c.within
	if limit == 0 {
		what, err := attempt(ctx)
		if err != nil {
			return err
		}
		if what != "" {
			return errors.New(what)
		}
	} else {
		err := harness.Poll(ctx, limit, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			what, err := attempt(ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			return what == "", "another answer than " + what, nil
		})
		if err != nil {
			return err
		}
	}
	for end := time.Now().Add(c.hold); c.hold > 0 && time.Now().Before(end); {
		if err := harness.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		what, err := attempt(ctx)
		if err != nil {
			return err
		}
		if what != "" {
			return fmt.Errorf("it did not stay so: %s", what)
		}
	}
	return nil
}

// processCheck is `exit sidecar.A code=3 [within 10s]` and `rss sidecar.A <= 512MiB`.
func (x *run) processCheck(ctx context.Context, s Step) error {
	f := strings.Fields(s.Arg)
	if len(f) < 2 {
		return fmt.Errorf("--@%s needs a target and a condition", s.Name)
	}
	kind, side, _ := strings.Cut(f[0], ".")
	if side == "" {
		kind, side = "sidecar", f[0]
	}
	rs, err := x.regions(side)
	if err != nil {
		return err
	}
	for _, r := range rs {
		sc := r.Sidecar
		if kind == "standby" {
			sc = r.Standby
		}
		if sc == nil || sc.Process() == nil {
			return fmt.Errorf("look at %s: it was never started", f[0])
		}
		if s.Name == "rss" {
			if f[1] == "reset" {
				sc.ResetPeak()
				continue
			}
			c, err := parseCondition(strings.Join(f[1:], " "))
			if err != nil {
				return err
			}
			peak := sc.NotePeak()
			x.note("peak memory of sidecar %s: %d MiB", r.Side, peak>>20)
			if !c.holds(strconv.FormatInt(peak, 10)) {
				return fmt.Errorf("peak memory of sidecar %s is %d MiB, want %s", r.Side, peak>>20, c)
			}
			continue
		}
		if f[1] == "running" {
			if !sc.Running() {
				return fmt.Errorf("%s %s ended with code %d", kind, r.Side, sc.Process().ExitCode())
			}
			continue
		}
		code, err := sc.Process().Wait(ctx, duration(f[2:], 10*time.Second))
		if err != nil {
			return err
		}
		c, err := parseCondition(strings.TrimPrefix(f[1], "code"))
		if err != nil {
			return err
		}
		if !c.holds(strconv.Itoa(code)) {
			return fmt.Errorf("sidecar %s ended with code %d, want %s: %s", r.Side, code, c, harness.TailFile(sc.LogPath, 3))
		}
	}
	return nil
}
