package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// limits are what a process may have of the machine; 0 leaves a thing unlimited.
type limits struct {
	files  int   // open descriptors
	memory int64 // resident bytes, with its page cache (needs root)
	cpu    int   // percent of one core (needs root)
}

// SetLimits reads `files=256 memory=256MiB cpu=50`, for the next start. memory and cpu need root and
// the control groups of the kernel, of either version.
func (s *Sidecar) SetLimits(text string) error {
	var l limits
	for _, f := range strings.Fields(text) {
		name, value, _ := strings.Cut(f, "=")
		n, err := strconv.Atoi(strings.TrimSuffix(value, "MiB"))
		if err != nil {
			return fmt.Errorf("read limit %q: %w", f, err)
		}
		switch name {
		case "files":
			l.files = n
		case "memory":
			l.memory = int64(n) << 20
		case "cpu":
			l.cpu = n
		default:
			return fmt.Errorf("read limit %q: want files=256, memory=256MiB or cpu=50", f)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
	return nil
}

// command puts what sets the limits in front of a command.
func (l limits) command(path string, args []string) (string, []string) {
	if l.files == 0 {
		return path, args
	}
	line := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, l.files)
	return "/bin/sh", append([]string{"-c", line, path}, args...)
}

// apply puts the process into a control group of its own.
func (l limits) apply(pid int, name string) error {
	if l.memory == 0 && l.cpu == 0 {
		return nil
	}
	files := map[string]map[string]string{"memory": {}, "cpu": {}}
	root := "/sys/fs/cgroup"
	_, err := os.Stat(filepath.Join(root, "cgroup.controllers"))
	unified := err == nil
	if unified {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu +memory"), 0o644); err != nil {
			return fmt.Errorf("limit %s: %w", name, err)
		}
	}
	if l.memory > 0 {
		files["memory"][map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}[unified]] = fmt.Sprint(l.memory)
	}
	if l.cpu > 0 && unified {
		files["cpu"]["cpu.max"] = fmt.Sprintf("%d 100000", l.cpu*1000)
	} else if l.cpu > 0 {
		files["cpu"]["cpu.cfs_period_us"] = "100000"
		files["cpu"]["cpu.cfs_quota_us"] = fmt.Sprint(l.cpu * 1000)
	}
	for controller, values := range files {
		if len(values) == 0 {
			continue
		}
		dir := filepath.Join(root, controller, "pgwaltz-cases-"+name)
		if unified {
			dir = filepath.Join(root, "pgwaltz-cases-"+name)
		}
		errs := []error{os.MkdirAll(dir, 0o755)}
		for file, v := range values {
			errs = append(errs, os.WriteFile(filepath.Join(dir, file), []byte(v), 0o644))
		}
		errs = append(errs, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0o644))
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("limit %s: %w", name, err)
		}
	}
	return nil
}

// release removes the control groups of an ended process.
func (l limits) release(name string) {
	if l.memory == 0 && l.cpu == 0 {
		return
	}
	for _, dir := range []string{"memory", "cpu", ""} {
		_ = os.Remove(filepath.Join("/sys/fs/cgroup", dir, "pgwaltz-cases-"+name))
	}
}

// mountTmpfs makes a folder a tmpfs that the PostgreSQL user owns; size in MB.
func mountTmpfs(dir string, mb int) error {
	opts := fmt.Sprintf("size=%dm,mode=0700", mb)
	if cred, _ := serverUser(); cred != nil {
		opts += fmt.Sprintf(",uid=%d,gid=%d", cred.Uid, cred.Gid)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", opts, "tmpfs", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w: %s", filepath.Base(dir), err, out)
	}
	return nil
}
