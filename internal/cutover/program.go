package cutover

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// programs is a folder with pg_dump and pg_restore.
type programs struct {
	dir   string
	major int
}

// findPrograms finds pg_dump of a version that reads the source's server: the oldest of those, because the destination has to understand what it
// writes. With dir it is that folder's. None is a *preflight.Refusal.
func findPrograms(ctx context.Context, dir string, source, destination int) (programs, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs, _ = filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
		more, _ := filepath.Glob("/usr/pgsql-*/bin")
		dirs = append(dirs, more...)
		if path, err := exec.LookPath("pg_dump"); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	var all []programs
	var seen []string
	for _, d := range dirs {
		out, err := exec.CommandContext(ctx, filepath.Join(d, "pg_dump"), "--version").Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(d, "pg_restore")); err != nil {
			continue
		}
		p := programs{d, majorOf(string(out))}
		seen = append(seen, fmt.Sprintf("%d in %s", p.major, d))
		if p.major >= source {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		found := "none was found"
		if len(seen) > 0 {
			found = "found: " + strings.Join(seen, ", ")
		}
		return programs{}, &preflight.Refusal{Doing: "copy the schema", Findings: preflight.Findings{{Severity: preflight.Error, Code: "no_pg_dump",
			What:   fmt.Sprintf("the source is PostgreSQL %d, and pg_dump reads no server that is newer than itself; %s", source, found),
			Remedy: fmt.Sprintf("apt-get install postgresql-client-%d, or --bin FOLDER that holds pg_dump and pg_restore", max(source, destination))}}}
	}
	return slices.MinFunc(all, func(a, b programs) int { return a.major - b.major }), nil
}

var version = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// majorOf is 15 of "pg_dump (PostgreSQL) 15.14 (Debian 15.14-0)"; 0 where it is not understood.
func majorOf(said string) int {
	m := version.FindStringSubmatch(said)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // they are digits
	return n
}

// run runs one of them with an environment of libpq that is ours alone, and returns what it printed. What it said of an error is in the error.
func (p programs) run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, name), args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "PG") }), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
