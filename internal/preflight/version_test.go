package preflight

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// What is said of servers that are too old, too new, or lack a correction.
func TestVersionsOfTheServer(t *testing.T) {
	t.Parallel()
	for version, want := range map[int]string{130012: "error server_version", 140017: "warning server_minor", 150099: "", 180000: "", 190000: "warning server_version"} {
		var fs Findings
		checkServer(&facts{cfg: &config.Config{Direction: config.DirectionBoth}, sys: pg.System{Version: version, WALLevel: "logical"}}, &fs)
		got := ""
		for _, f := range fs {
			got += string(f.Severity) + " " + f.Code
			if f.Remedy == "" {
				t.Errorf("%s has no remedy", f.Code)
			}
		}
		if got != want {
			t.Errorf("%d: %q, want %q", version, got, want)
		}
	}
}

func TestDeafUntil(t *testing.T) {
	t.Parallel()
	for version, want := range map[int]int{140017: 18, 140018: 0, 150012: 13, 150018: 0, 160000: 9, 170004: 5, 170005: 0, 180000: 0, 190000: 0} {
		if got := deafUntil(version); got != want {
			t.Errorf("%d: %d, want %d", version, got, want)
		}
	}
}
