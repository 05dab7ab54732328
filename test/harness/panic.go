package harness

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
)

var panicRE = regexp.MustCompile(`^(panic:|fatal error:|WARNING: DATA RACE|\s*goroutine \d+ \[running\])`)

// Panicked returns the first line of a log that tells of a panic or a race, "" for none.
// A log that is not there tells of none.
func Panicked(path string) (string, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		if panicRE.MatchString(sc.Text()) {
			return sc.Text(), nil
		}
	}
	return "", sc.Err()
}
