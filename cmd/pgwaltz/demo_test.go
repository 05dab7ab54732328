package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/demo"
)

// program builds the binary: the demo starts sidecars from the program that it is.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgwaltz")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// demoCommand prepares a demo whose folders land in a folder of the test's own.
func demoCommand(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	temp, err := os.MkdirTemp("", "pgwd-") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o711); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), program(t), append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	return cmd, temp
}

func nothingLeft(t *testing.T, temp string) {
	t.Helper()
	entries, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
	// Every process of the demo has the folder in its arguments.
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is valid
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(temp)) {
			t.Errorf("left running: %s", bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
}

// TestDemo is the product in small: two regions, a cut, conflicts, and equal tables.
func TestDemo(t *testing.T) {
	t.Parallel()
	cmd, temp := demoCommand(t, "--duration", "10s", "--cut", "2s", "--rate", "150", "--json", "--seed", "42")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var s demo.Summary
	if jerr := json.Unmarshal(stdout.Bytes(), &s); err != nil || jerr != nil {
		t.Fatalf("demo: %v, summary: %v\n%s%s", err, jerr, stdout.String(), stderr.String())
	}
	if !s.Good || !s.Equal || s.Rows == 0 || s.Conflicts.Events == 0 || len(s.Samples) == 0 || s.Latency.Samples == 0 || s.Seed != 42 {
		t.Errorf("summary %s", stdout.String())
	}
	nothingLeft(t, temp)
}

// TestDemoInterrupted ends a demo in the middle.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	cmd, temp := demoCommand(t, "--duration", "60s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer limit.Stop()
	signalled := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !signalled && strings.Contains(lines.Text(), "link up") { // the writing has begun
			signalled = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !signalled || !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("signalled %v, error %v\n%s", signalled, err, stderr.String())
	}
	nothingLeft(t, temp)
}

func TestNoTerminalForAFile(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if terminalSize(file, nil) != nil || terminalSize(&bytes.Buffer{}, nil) != nil {
		t.Error("a file and a buffer are taken for a terminal")
	}
}
