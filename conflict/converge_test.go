package conflict

import (
	"os"
	"strconv"
	"testing"
)

// seeds is how many schedules each configuration plays; PGWALTZ_MODEL_SEEDS asks for more.
func seeds(t *testing.T, normal uint64) uint64 {
	t.Helper()
	if s := os.Getenv("PGWALTZ_MODEL_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal("PGWALTZ_MODEL_SEEDS is not a number")
		}
		return n
	}
	return normal
}

func models() map[string]modelConfig {
	base := modelConfig{regions: 2, version: true, time: true, full: true, bump: true, keys: 2, ops: 12, txDelay: 3000, redeliver: true}
	with := func(f func(*modelConfig)) modelConfig {
		c := base
		f(&c)
		return c
	}
	all := func(c *modelConfig) {
		c.deletes, c.keyChange, c.stale, c.jumps, c.skew = true, true, true, true, 3_600_000_000
	}
	keyOnly := func(c *modelConfig) { all(c); c.full, c.redeliver = false, false }
	return map[string]modelConfig{
		"updates":                base,
		"deletes":                with(func(c *modelConfig) { c.deletes = true }),
		"deletes 3":              with(func(c *modelConfig) { c.deletes, c.regions = true, 3 }),
		"one key":                with(func(c *modelConfig) { c.deletes, c.keys, c.regions = true, 1, 3 }),
		"key change":             with(func(c *modelConfig) { c.deletes, c.keyChange, c.keys = true, true, 3 }),
		"no bump":                with(func(c *modelConfig) { c.deletes, c.bump = true, false }),
		"stale":                  with(func(c *modelConfig) { c.deletes, c.stale = true, true }),
		"all":                    with(all),
		"all 3":                  with(func(c *modelConfig) { all(c); c.regions = 3 }),
		"time now":               with(func(c *modelConfig) { c.deletes, c.order, c.skew = true, TimeFirst, 5000 }),
		"time all 3":             with(func(c *modelConfig) { all(c); c.order, c.regions = TimeFirst, 3 }),
		"time column only":       with(func(c *modelConfig) { all(c); c.version = false }),
		"version column only":    with(func(c *modelConfig) { all(c); c.time = false }),
		"key identity":           with(func(c *modelConfig) { c.deletes, c.full = true, false }),
		"key identity 3":         with(func(c *modelConfig) { c.deletes, c.full, c.regions = true, false, 3 }),
		"key identity all":       with(keyOnly),
		"key identity time 3":    with(func(c *modelConfig) { keyOnly(c); c.order, c.regions = TimeFirst, 3 }),
		"key identity time only": with(func(c *modelConfig) { keyOnly(c); c.version = false }),
		"stampless":              with(func(c *modelConfig) { all(c); c.version, c.time = false, false }),
		"stampless 3":            with(func(c *modelConfig) { all(c); c.version, c.time, c.regions = false, false, 3 }),
		"stampless key identity": with(func(c *modelConfig) { all(c); c.version, c.time, c.full = false, false, false }),
		"collected":              with(func(c *modelConfig) { c.deletes, c.phases = true, 3 }),
		"collected all":          with(func(c *modelConfig) { all(c); c.phases = 3 }),
		"collected key identity": with(func(c *modelConfig) { c.deletes, c.full, c.phases = true, false, 3 }),
	}
}

// play runs n schedules and returns how many went wrong, and the first of them.
func play(cfg modelConfig, n uint64) (bad int, first uint64, why string) {
	for seed := range n {
		cfg.window = window(seed % uint64(windows))
		if s := newModel(cfg, seed).run(); s != "" {
			if bad++; bad == 1 {
				first, why = seed, s
			}
		}
	}
	return bad, first, why
}

// TestConverge plays random schedules. Each must end with equal regions, and with every
// written row an ancestor of the end or of a recorded loser (where the replica identity says
// what an update overwrote). To see one schedule step by step, set PGWALTZ_MODEL_TRACE to its
// seed and run the one configuration.
func TestConverge(t *testing.T) {
	t.Parallel()
	for name, cfg := range models() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s := os.Getenv("PGWALTZ_MODEL_TRACE"); s != "" {
				seed, err := strconv.ParseUint(s, 10, 64)
				if err != nil {
					t.Fatal("PGWALTZ_MODEL_TRACE is not a number")
				}
				cfg.window = window(seed % uint64(windows))
				m := newModel(cfg, seed)
				m.trace = t.Logf
				t.Logf("result: %q", m.run())
				return
			}
			n := seeds(t, 250)
			if bad, first, why := play(cfg, n); bad > 0 {
				t.Errorf("%d of %d schedules went wrong; first with seed %d: %s", bad, n, first, why)
			}
		})
	}
}

// TestModelNotices switches rules off one by one: a model that passes without a rule would
// prove nothing about it.
func TestModelNotices(t *testing.T) {
	t.Parallel()
	all := models()
	for name, c := range map[string]struct {
		config string
		broken breakage
	}{
		"no tombstones":           {"deletes", noTombstones},
		"no generations":          {"deletes", noGenerations},
		"no lift":                 {"stale", noLift},
		"no pushback":             {"key identity all", noPushback},
		"no self-merge":           {"deletes", noSelfMerge},
		"the last to come wins":   {"updates", arrivalWins},
		"events get lost":         {"updates", dropsEvents},
		"conflicts not recorded":  {"deletes", dropsAudit},
		"tombstones forgotten":    {"deletes", forgetsAtOnce},
		"runs go on when falling": {"key identity time only", runsFall},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := all[c.config]
			cfg.breakage = c.broken
			bad, _, _ := play(cfg, 1500)
			if bad == 0 {
				t.Error("1500 schedules without the rule, and nothing went wrong")
			}
			t.Logf("%d of 1500 schedules went wrong", bad)
		})
	}
}
