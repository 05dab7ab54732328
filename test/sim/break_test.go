package sim

import "testing"

// provoke makes the situation more likely in which a rule matters.
func provoke(c *Config) {
	switch c.Break {
	case StaleTail, BatchCovers, Restamp, LossyPushback:
		c.Faults += 10
	case AckEarly:
		c.Async, c.Faults = true, c.Faults+10
	case RunsFall, HoldsByStamp:
		for i := range c.Tables {
			c.Tables[i].Stale = true
		}
	}
}

// TestSimFindsBreakage breaks one rule at a time. The restatements that differ from the product's code are in the list too: each of them
// was, or is, a bug there, and its seed shows what comes of it.
func TestSimFindsBreakage(t *testing.T) {
	t.Parallel()
	for b := Sound + 1; b < breakages; b++ {
		t.Run(b.String(), func(t *testing.T) {
			t.Parallel()
			const limit = 3000
			for seed := uint64(1); seed <= limit; seed++ {
				cfg := Draw(seed)
				cfg.Break = b
				provoke(&cfg)
				if why, _, _ := play(t, cfg, nil); why != "" {
					t.Logf("seed %d: %s", seed, why)
					return
				}
			}
			t.Errorf("%d seeds did not notice", limit)
		})
	}
}

// TestSimIsDeterministic plays seeds twice.
func TestSimIsDeterministic(t *testing.T) {
	t.Parallel()
	seen := map[uint64]bool{}
	const seeds = 25
	for seed := uint64(1); seed <= seeds; seed++ {
		var lines [2][]string
		var hashes [2]uint64
		for i := range 2 {
			_, hashes[i], _ = play(t, Draw(seed), func(l string) { lines[i] = append(lines[i], l) })
		}
		if hashes[0] != hashes[1] {
			for n := range min(len(lines[0]), len(lines[1])) {
				if lines[0][n] != lines[1][n] {
					t.Fatalf("seed %d: the runs part at line %d:\n%s\n%s", seed, n, lines[0][n], lines[1][n])
				}
			}
			t.Fatalf("seed %d: trace %016x, then %016x", seed, hashes[0], hashes[1])
		}
		seen[hashes[0]] = true
	}
	if len(seen) != seeds {
		t.Errorf("%d seeds made %d traces", seeds, len(seen))
	}
}
