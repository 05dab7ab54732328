package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is one child process with its output in a file. Its methods may be called from
// any goroutine; one internal goroutine waits for it from start to end.
type Process struct {
	Name    string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has been reaped
	err     error         // result of Wait, valid after done
	mu      sync.Mutex
	peakRSS int64 // bytes, the highest VmHWM seen
}

// Spec describes a process to start.
type Spec struct {
	Name string
	Path string
	Args []string
	Env  []string // appended to this process's environment
	Dir  string
	Log  string // file that stdout and stderr are appended to
	Cred *syscall.Credential
	// Stdout, when set, takes stdout away from the log.
	Stdout *os.File
}

// StartProcess starts a child in a process group of its own. The kernel kills the child
// when this process dies.
func StartProcess(s Spec) (*Process, error) {
	logFile, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", s.Name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Dir = s.Dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if s.Stdout != nil {
		cmd.Stdout = s.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: s.Cred}
	p := &Process{Name: s.Name, cmd: cmd, done: make(chan struct{})}
	if err := spawner.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID of the process; it may have ended.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is the exit code of an ended process; 128+n for one that signal n ended, -1
// for one that still runs.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	var ee *exec.ExitError
	if errors.As(p.err, &ee) {
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return ee.ExitCode()
	}
	return 0
}

// Signal sends a signal to exactly this process.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Running() {
		return fmt.Errorf("signal %s: not running", p.Name)
	}
	if err := syscall.Kill(p.PID(), sig); err != nil {
		return fmt.Errorf("signal %s with %s: %w", p.Name, sig, err)
	}
	return nil
}

// Freeze stops the process in its tracks; Continue lets it go on.
func (p *Process) Freeze() error { return p.Signal(syscall.SIGSTOP) }

// Continue ends a Freeze.
func (p *Process) Continue() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the whole process group at once and waits until it is gone.
func (p *Process) Kill() {
	if p.Running() {
		p.PeakRSS()
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// Wait waits until the process has ended.
func (p *Process) Wait(ctx context.Context, limit time.Duration) (int, error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
		return p.ExitCode(), nil
	case <-ctx.Done():
		return -1, ctx.Err()
	case <-t.C:
		return -1, fmt.Errorf("wait for %s to end: %w after %s", p.Name, ErrTimeout, limit)
	}
}
