package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Machine is where a run took place.
type Machine struct {
	Cores      int    `json:"cores"`
	CPU        string `json:"cpu"`
	MemoryMB   int    `json:"memory_mb"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	PostgreSQL string `json:"postgresql"`
	Filesystem string `json:"filesystem"` // of the data folders
}

func describeMachine(ctx context.Context, r *Rig) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), PostgreSQL: r.PGVersion}
	m.CPU = field("/proc/cpuinfo", "model name")
	fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d", &m.MemoryMB)
	m.MemoryMB /= 1024
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if out, err := exec.CommandContext(ctx, "stat", "-f", "-c", "%T", filepath.Clean(r.Room.Dir)).Output(); err == nil {
		m.Filesystem = strings.TrimSpace(string(out))
	}
	return m
}

func field(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// commit names the source that was measured: git's commit, with -dirty when files differ.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// loadAverage is how many processes wanted a CPU in the minute before; 0 where that is not known.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var v float64
	fmt.Sscan(string(b), &v)
	return v
}
