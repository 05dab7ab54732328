package conflict

import (
	"os"
	"strconv"
	"testing"
)

// seeds is how many schedules each configuration plays; PGWALTZ_MODEL_SEEDS asks for more.
func seeds(t *testing.T, normal int) uint64 {
	if s := os.Getenv("PGWALTZ_MODEL_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("PGWALTZ_MODEL_SEEDS is not a number")
		}
		return uint64(n)
	}
	return uint64(normal)
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
	return map[string]modelConfig{
		"updates":                 base,
		"deletes":                 with(func(c *modelConfig) { c.deletes = true }),
		"deletes 3":               with(func(c *modelConfig) { c.deletes, c.regions = true, 3 }),
		"one key":                 with(func(c *modelConfig) { c.deletes, c.keys, c.regions = true, 1, 3 }),
		"key change":              with(func(c *modelConfig) { c.deletes, c.keyChange, c.keys = true, true, 3 }),
		"no bump":                 with(func(c *modelConfig) { c.deletes, c.bump = true, false }),
		"stale":                   with(func(c *modelConfig) { c.deletes, c.stale = true, true }),
		"all":                     with(all),
		"all 3":                   with(func(c *modelConfig) { all(c); c.regions = 3 }),
		"time now()":              with(func(c *modelConfig) { c.deletes, c.order, c.skew = true, TimeFirst, 5000 }),
		"time all 3":              with(func(c *modelConfig) { all(c); c.order, c.regions = TimeFirst, 3 }),
		"time column only":        with(func(c *modelConfig) { all(c); c.version = false }),
		"version column only":     with(func(c *modelConfig) { all(c); c.time = false }),
		"key identity":            with(func(c *modelConfig) { c.deletes, c.full = true, false }),
		"key identity 3":          with(func(c *modelConfig) { c.deletes, c.full, c.regions = true, false, 3 }),
		"key identity all":        with(func(c *modelConfig) { all(c); c.full, c.redeliver = false, false }),
		"key identity time all 3": with(func(c *modelConfig) { all(c); c.full, c.order, c.regions, c.redeliver = false, TimeFirst, 3, false }),
		"key identity time only":  with(func(c *modelConfig) { all(c); c.full, c.version, c.redeliver = false, false, false }),
		"stampless":               with(func(c *modelConfig) { all(c); c.version, c.time = false, false }),
		"stampless 3":             with(func(c *modelConfig) { all(c); c.version, c.time, c.regions = false, false, 3 }),
		"stampless key identity":  with(func(c *modelConfig) { all(c); c.version, c.time, c.full = false, false, false }),
		"collected":               with(func(c *modelConfig) { c.deletes, c.phases = true, 3 }),
		"collected all":           with(func(c *modelConfig) { all(c); c.phases = 3 }),
		"collected key identity":  with(func(c *modelConfig) { c.deletes, c.full, c.phases = true, false, 3 }),
	}
}

// TestConverge plays random schedules. Each must end with equal regions and with every
// write an ancestor of the end, or of a recorded loser.
func TestConverge(t *testing.T) {
	t.Parallel()
	for name, cfg := range models() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, first, why := 0, uint64(0), ""
			kinds := map[string]int{}
			n := seeds(t, 400)
			for seed := range n {
				cfg.window = window(seed % uint64(windows))
				if s := newModel(cfg, seed).run(); s != "" {
					kinds[s[:min(len(s), 14)]+[]string{" open", " ahead", " barrier"}[cfg.window]]++
					if bad++; bad == 1 {
						first, why = seed, s
					}
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d schedules went wrong; first with seed %d: %s %v", bad, n, first, why, kinds)
			}
		})
	}
}
