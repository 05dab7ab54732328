package pgcluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
)

// NotFoundError says that no PostgreSQL server programs were found.
type NotFoundError struct{ Where []string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find PostgreSQL: no initdb and postgres in %v", e.Where)
}

// Hint is the remedy.
func (e *NotFoundError) Hint() string {
	return "apt-get install postgresql, or set PGWALTZ_PG_BIN to the folder that holds initdb and postgres"
}

// FindBin returns the folder of initdb and postgres: override (PGWALTZ_PG_BIN) when it is set, else the
// newest below /usr/lib/postgresql, else the one on PATH.
func FindBin(override string) (string, error) {
	if override != "" {
		if complete(override) {
			return override, nil
		}
		return "", &NotFoundError{[]string{override}}
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
	sort.Slice(dirs, func(i, j int) bool { return major(dirs[i]) > major(dirs[j]) })
	more, _ := filepath.Glob("/usr/pgsql-*/bin")
	sort.Sort(sort.Reverse(sort.StringSlice(more)))
	for _, dir := range append(dirs, more...) {
		if complete(dir) {
			return dir, nil
		}
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if resolved, err := filepath.EvalSymlinks(initdb); err == nil {
			initdb = resolved
		}
		if dir := filepath.Dir(initdb); complete(dir) {
			return dir, nil
		}
	}
	return "", &NotFoundError{[]string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "PATH"}}
}

func major(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return n
}

func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, program))
		if err != nil || info.IsDir() {
			return false
		}
	}
	return true
}
