package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// skewEnv is the environment under which the clock of a server follows a file, and the
// file; empty without libfaketime. Monotonic clocks stay true.
func skewEnv(dir string, n int) (file string, env []string) {
	file = filepath.Join(dir, fmt.Sprintf("skew%d", n))
	env, err := harness.ClockEnv(file)
	if err != nil {
		return "", nil
	}
	return file, env
}

// setSkew sets the server's clock off by d, within a second.
func (s *side) setSkew(d time.Duration) {
	if s.skew != "" {
		_ = harness.SetClock(s.skew, d)
	}
}
