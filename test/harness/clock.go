package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// libfaketime are the places where distributions put the library that sets clocks off.
var libfaketime = []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1"}

// FindFaketime is the path of libfaketime, "" when it is not installed.
func FindFaketime() string {
	for _, p := range libfaketime {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// ClockEnv is the environment under which the clock of a server follows a file, which it makes.
// Monotonic clocks stay true. Without libfaketime it is an error.
func ClockEnv(file string) ([]string, error) {
	lib := FindFaketime()
	if lib == "" {
		return nil, errors.New("set clocks off: libfaketime is not installed")
	}
	if err := SetClock(file, 0); err != nil {
		return nil, err
	}
	return []string{"LD_PRELOAD=" + lib, "FAKETIME_TIMESTAMP_FILE=" + file, "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"}, nil
}

// SetClock sets the clock off by d that follows the file; it does so within a second.
func SetClock(file string, d time.Duration) error {
	if err := os.WriteFile(file, []byte(fmt.Sprintf("%+ds\n", int(d.Seconds()))), 0o644); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

// SetClock sets the server's clock off by d, within a second. The cluster was made with Clock.
func (k *Cluster) SetClock(d time.Duration) error {
	if k.clock == "" {
		return fmt.Errorf("set clock of %s: it was not made for that", k.Name)
	}
	return SetClock(k.clock, d)
}
