package pgtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Pglogical are the settings of servers that load the extension; bin is the folder of their programs. Where it is not installed the
// test fails, and says what to type: a mode that is never run is not a mode.
func Pglogical(t testing.TB, bin string) map[string]string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "pg_config"), "--sharedir").Output()
	if err == nil {
		_, err = os.Stat(filepath.Join(strings.TrimSpace(string(out)), "extension", "pglogical.control"))
	}
	if err != nil {
		t.Fatalf("the extension pglogical is not installed: make pglogical, or apt-get install postgresql-15-pglogical; without its tests: go test -skip Pglogical (%v)", err)
	}
	return map[string]string{"shared_preload_libraries": "'pglogical'", "track_commit_timestamp": "on", "max_worker_processes": "30"}
}
