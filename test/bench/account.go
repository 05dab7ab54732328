package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Classes of processes in the CPU account.
const (
	ClassWalsender    = "walsender"
	ClassSourceOther  = "source other" // sessions of a sidecar, walwriter, background writer
	ClassApply        = "apply"        // apply worker, or the sessions that apply
	ClassTargetWriter = "target walwriter"
	ClassTargetOther  = "target other"
)

// tick is the unit of /proc/PID/stat on Linux, in seconds.
const tick = 0.01

// usage is what every process had used at one moment, in seconds.
type usage struct {
	byPID   map[int]float64
	classes map[int]string
	busy    float64 // of the whole machine, all cores
}

// account reads the processes of all clusters and the sidecars.
func (r *Rig) account(side map[string]*harness.Process, skip map[uint32]bool) (usage, error) {
	u := usage{byPID: map[int]float64{}, classes: map[int]string{}}
	for _, c := range r.clusters() {
		post, err := postmaster(c)
		if err != nil {
			return u, err
		}
		for _, pid := range children(post) {
			title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			class := classOf(c == r.Source, string(title))
			if skip[uint32(pid)] || class == "" {
				continue
			}
			u.byPID[pid], u.classes[pid] = cpuSeconds(pid), class
		}
	}
	for name, p := range side {
		if p != nil {
			u.byPID[p.PID()], u.classes[p.PID()] = cpuSeconds(p.PID()), "sidecar "+strings.TrimRight(name, "0123456789")
		}
	}
	u.busy = busySeconds()
	return u, nil
}

// since adds up, by class, what was used between two readings. A process that was not
// there before counts from its birth; one that has ended meanwhile is missed.
func (u usage) since(before usage) map[string]float64 {
	out := map[string]float64{}
	for pid, now := range u.byPID {
		if d := now - before.byPID[pid]; d > 0.0001 {
			out[u.classes[pid]] += d
		}
	}
	return out
}

func classOf(source bool, title string) string {
	kind, ok := strings.CutPrefix(strings.TrimRight(title, "\x00 "), "postgres: ")
	if !ok {
		return ""
	}
	switch {
	case strings.HasPrefix(kind, "walsender"):
		return ClassWalsender
	case source:
		return ClassSourceOther
	case strings.HasPrefix(kind, "logical replication"), strings.HasPrefix(kind, "pglogical apply"), strings.HasPrefix(kind, "postgres "):
		return ClassApply
	case strings.HasPrefix(kind, "walwriter"):
		return ClassTargetWriter
	}
	return ClassTargetOther
}

func postmaster(c *harness.Cluster) (int, error) {
	data, err := os.ReadFile(filepath.Join(c.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("find postmaster of %s: %w", c.Name, err)
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(first)))
	if err != nil {
		return 0, fmt.Errorf("find postmaster of %s: %w", c.Name, err)
	}
	return pid, nil
}

// stat returns the fields of /proc/PID/stat behind the name: state is the first.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name in parentheses may hold blanks.
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

func children(parent int) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if f := stat(pid); len(f) > 1 && f[1] == strconv.Itoa(parent) {
			out = append(out, pid)
		}
	}
	return out
}

func cpuSeconds(pid int) float64 {
	f := stat(pid)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) * tick
}

// busySeconds is the time that all cores together were not idle since boot.
func busySeconds() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	sum := 0.0
	for i, f := range strings.Fields(line) {
		// user nice system idle iowait irq softirq steal; guests are in user already
		if v, err := strconv.ParseFloat(f, 64); err == nil && i != 4 && i != 5 && i <= 8 {
			sum += v
		}
	}
	return sum * tick
}
