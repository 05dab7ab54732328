package cases

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

var chaosRE = regexp.MustCompile(`(?s)^(\w+)\s+every\s+(\S+)\s+for\s+(\S+)(?:\s+seed=(\d+))?\s*:\s+(.*)$`)

// chaos reads `NAME every 1s..3s for 20s seed=7: action | action`, `NAME wait`,
// `NAME stop`. While it runs, both sidecars are started again whenever they end.
func (x *run) chaos(ctx context.Context, arg string) error {
	f := strings.Fields(arg)
	if len(f) == 2 {
		j := x.state.chaos[f[0]]
		if j == nil {
			return fmt.Errorf("wait for chaos %s: it was never started", f[0])
		}
		if f[1] == "stop" {
			j.cancel()
		}
		return j.wait(ctx)
	}
	m := chaosRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read chaos %q: want NAME every 1s..3s for 20s seed=7: actions", shorten(arg))
	}
	lo, hi, err := span(m[2])
	if err != nil {
		return err
	}
	total, err := time.ParseDuration(m[3])
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	seed, _ := strconv.ParseUint(m[4], 10, 64)
	actions := splitActions(m[5])
	if len(actions) == 0 {
		return errors.New("read chaos: no action")
	}
	var stops []func()
	for _, r := range x.p.Regions() {
		if r.Sidecar.Process() != nil && !r.Sidecar.Reviving() {
			stops = append(stops, r.Sidecar.Revive(nil))
		}
	}
	x.state.chaos[m[1]] = x.goJob(ctx, func(ctx context.Context) error {
		defer func() {
			for _, s := range stops {
				s()
			}
		}()
		return x.runChaos(ctx, rand.New(rand.NewPCG(seed, 1)), lo, hi, total, actions)
	})
	return nil
}

func (x *run) runChaos(ctx context.Context, rnd *rand.Rand, lo, hi, total time.Duration, actions []string) error {
	n := 0
	for end := time.Now().Add(total); time.Now().Before(end); {
		d := lo
		if hi > lo {
			d += time.Duration(rnd.Int64N(int64(hi - lo)))
		}
		if harness.Pause(ctx, d) != nil {
			break
		}
		a := actions[rnd.IntN(len(actions))]
		if err := x.act(context.WithoutCancel(ctx), a); err != nil {
			// A process that is just being started again cannot be killed: that is chaos too.
			if strings.Contains(err.Error(), "not run") || strings.Contains(err.Error(), "runs already") {
				continue
			}
			return fmt.Errorf("%s: %w", a, err)
		}
		n++
	}
	// The last victim must be up again before somebody takes the reviver away.
	return harness.Poll(context.WithoutCancel(ctx), 30*time.Second, 50*time.Millisecond, func(context.Context) (bool, string, error) {
		for _, r := range x.p.Regions() {
			if r.Sidecar.Process() != nil && !r.Sidecar.Running() {
				return false, "sidecar " + r.Side + " to be started again", nil
			}
		}
		return true, "", nil
	})
}

func span(s string) (lo, hi time.Duration, err error) {
	a, b, ok := strings.Cut(s, "..")
	if lo, err = time.ParseDuration(a); err != nil {
		return 0, 0, fmt.Errorf("read interval: %w", err)
	}
	if !ok {
		return lo, lo, nil
	}
	if hi, err = time.ParseDuration(b); err != nil {
		return 0, 0, fmt.Errorf("read interval: %w", err)
	}
	return lo, hi, nil
}

func splitActions(s string) []string {
	var out []string
	for _, a := range strings.Split(s, "|") {
		if a = strings.TrimSpace(a); a != "" {
			out = append(out, a)
		}
	}
	return out
}

var shuffleRE = regexp.MustCompile(`(?s)^(?:seed=(\d+))?\s*(?:gap\s+(\S+))?\s*:\s+(.*)$`)

// shuffle reads `seed=7 gap 1s: action | action`: every action once, in an order drawn
// from the seed. The word ? in an action stands for a stop mode that is drawn too.
func (x *run) shuffle(ctx context.Context, arg string) error {
	m := shuffleRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read shuffle %q: want seed=7 gap 1s: actions", shorten(arg))
	}
	seed, _ := strconv.ParseUint(m[1], 10, 64)
	gap := duration([]string{m[2]}, 0)
	actions := splitActions(m[3])
	rnd := rand.New(rand.NewPCG(seed, 2))
	rnd.Shuffle(len(actions), func(i, j int) { actions[i], actions[j] = actions[j], actions[i] })
	for i, a := range actions {
		if i > 0 && gap > 0 {
			if err := harness.Pause(ctx, gap); err != nil {
				return err
			}
		}
		if strings.Contains(a, "?") {
			mode := []string{"fast", "immediate", "kill"}[rnd.IntN(3)]
			if strings.Contains(a, "sidecar") {
				mode = []string{"term", "kill"}[rnd.IntN(2)]
			}
			a = strings.ReplaceAll(a, "?", mode)
		}
		if err := x.act(ctx, a); err != nil {
			return fmt.Errorf("%s (order %s): %w", a, strings.Join(actions, ", "), err)
		}
	}
	return nil
}
