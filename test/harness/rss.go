package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// PeakRSS is the highest resident memory of the process so far, in bytes, as the kernel
// counted it (VmHWM): it misses no peak between two samples. It keeps its last value when
// the process has ended.
func (p *Process) PeakRSS() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kb := statusField(p.PID(), "VmHWM"); kb*1024 > p.peakRSS && p.Running() {
		p.peakRSS = kb * 1024
	}
	return p.peakRSS
}

// RSS is the resident memory of the process now, in bytes; 0 when it has ended.
func (p *Process) RSS() int64 {
	if !p.Running() {
		return 0
	}
	return statusField(p.PID(), "VmRSS") * 1024
}

func statusField(pid int, field string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		if !ok || name != field {
			continue
		}
		f := strings.Fields(rest)
		if len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			return n
		}
	}
	return 0
}

// descendants lists the children of a process, and theirs.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name in parentheses may hold blanks: the fields follow the last ')'.
		i := bytes.LastIndexByte(data, ')')
		if i < 0 {
			continue
		}
		f := strings.Fields(string(data[i+1:]))
		if len(f) < 2 {
			continue
		}
		ppid, _ := strconv.Atoi(f[1])
		self, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		children[ppid] = append(children[ppid], self)
	}
	var out []int
	var walk func(int)
	walk = func(p int) {
		for _, c := range children[p] {
			out = append(out, c)
			walk(c)
		}
	}
	walk(pid)
	return out
}

// spawner starts every child on one operating-system thread that lives as long as this
// process: the parent-death signal is tied to the thread that forked, and the Go runtime
// may end other threads at any time.
var spawner = newForker()

type forker struct{ work chan func() }

func newForker() *forker {
	f := &forker{work: make(chan func())} // unbuffered: start waits for the answer anyway
	go func() {
		runtime.LockOSThread()
		for fn := range f.work {
			fn()
		}
	}()
	return f
}

func (f *forker) start(cmd *exec.Cmd) error {
	res := make(chan error, 1) // one answer, never blocks the forker
	f.work <- func() { res <- cmd.Start() }
	return <-res
}
