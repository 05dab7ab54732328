package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"syscall"
)

// ErrNoPostgres says that no PostgreSQL server binaries were found on this machine.
var ErrNoPostgres = errors.New("no PostgreSQL server binaries found: install postgresql, or point PGWALTZ_PG_BIN at the folder that holds postgres and initdb")

// Binaries is a folder with the programs of one PostgreSQL installation.
type Binaries struct{ Dir string }

// FindBinaries looks in PGWALTZ_PG_BIN, then in /usr/lib/postgresql (15 first, then the
// newest), then in PATH.
func FindBinaries() (Binaries, error) {
	if dir := os.Getenv("PGWALTZ_PG_BIN"); dir != "" {
		if !hasServer(dir) {
			return Binaries{}, fmt.Errorf("look in PGWALTZ_PG_BIN=%s: %w", dir, ErrNoPostgres)
		}
		return Binaries{Dir: dir}, nil
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	sort.Slice(dirs, func(i, j int) bool { return rank(dirs[i]) > rank(dirs[j]) })
	for _, dir := range dirs {
		if hasServer(dir) {
			return Binaries{Dir: dir}, nil
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil && hasServer(filepath.Dir(p)) {
		return Binaries{Dir: filepath.Dir(p)}, nil
	}
	return Binaries{}, ErrNoPostgres
}

func rank(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if n == 15 {
		return 1000
	}
	return n
}

func hasServer(dir string) bool {
	for _, p := range []string{"postgres", "initdb"} {
		if st, err := os.Stat(filepath.Join(dir, p)); err != nil || st.IsDir() {
			return false
		}
	}
	return true
}

// Path is the full name of one program; psql and its like fall back to PATH and to what is
// installed, because some packages keep the client programs elsewhere or have none.
func (b Binaries) Path(program string) string {
	p := filepath.Join(b.Dir, program)
	if _, err := os.Stat(p); err == nil {
		return p
	}
	if q, err := exec.LookPath(program); err == nil {
		return q
	}
	if others, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(others) > 0 {
		return others[len(others)-1]
	}
	return p
}

// serverUser is who PostgreSQL runs as: root may not run it, so root borrows the user
// postgres (or nobody); everybody else runs it as himself.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}, nil
		}
	}
	return nil, errors.New("look up an unprivileged user for PostgreSQL: neither postgres nor nobody exists")
}
