package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// libfaketime are the places where distributions put the library that sets clocks off.
var libfaketime = []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1"}

// findFaketime is the library's path, "" when it is not installed.
func findFaketime() string {
	for _, p := range libfaketime {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// skewEnv is the environment under which the clock of a server follows a file, and the
// file; empty without libfaketime. Monotonic clocks stay true.
func skewEnv(dir string, n int) (file string, env []string) {
	lib := findFaketime()
	if lib == "" {
		return "", nil
	}
	file = filepath.Join(dir, fmt.Sprintf("skew%d", n))
	if err := os.WriteFile(file, []byte("+0s\n"), 0o644); err != nil {
		return "", nil
	}
	return file, []string{"LD_PRELOAD=" + lib, "FAKETIME_TIMESTAMP_FILE=" + file, "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"}
}

// setSkew sets the server's clock off by d, within a second.
func (s *side) setSkew(d time.Duration) {
	if s.skew != "" {
		_ = os.WriteFile(s.skew, []byte(fmt.Sprintf("%+ds\n", int(d.Seconds()))), 0o644)
	}
}
