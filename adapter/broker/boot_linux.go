package broker

import (
	"os"
	"strings"
)

// bootID names the boot of this machine: while it is the same, what was written to a file is in that
// file or in the page cache, however the process that wrote it has ended. "" where nobody can tell.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
