package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// childError says that a pgwaltz process ended badly; its log stands in the message.
type childError struct {
	what string
	err  error
	log  []byte
}

func (e *childError) Error() string {
	return fmt.Sprintf("%s: %v\n%s", e.what, e.err, bytes.TrimSpace(e.log))
}
func (e *childError) Unwrap() error { return e.err }

// sidecar is `pgwaltz run` as a process of its own, the program of this very process.
type sidecar struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when the process has gone; err is set before
	err     error
}

func pgwaltz(ctx context.Context, exe string, env []string, logPath string, args ...string) (*exec.Cmd, *os.File, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, env
	// A group of its own: an interrupt typed at the terminal is ours to handle, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, log, nil
}

// runToEnd runs a pgwaltz command and waits for it.
func runToEnd(ctx context.Context, exe string, env []string, logPath, what string, args ...string) error {
	cmd, log, err := pgwaltz(ctx, exe, env, logPath, args...)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &childError{what, err, tailOf(logPath)}
	}
	return nil
}

// startSidecar starts `pgwaltz run`. It lives until stop, not until ctx ends.
func startSidecar(ctx context.Context, exe string, env []string, name, config, logPath string) (*sidecar, error) {
	cmd, log, err := pgwaltz(context.WithoutCancel(ctx), exe, env, logPath, "run", "-config", config)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sidecar %s: %w", name, err)
	}
	s := &sidecar{name: name, cmd: cmd, logPath: logPath, exited: make(chan struct{})}
	go func() { // ends with the process; stop waits for it
		s.err = cmd.Wait()
		close(s.exited)
	}()
	return s, nil
}

// died returns the error of a sidecar that ended by itself.
func (s *sidecar) died() error {
	err := s.err
	if err == nil {
		err = errors.New("it ended without being asked to")
	}
	return &childError{"run sidecar " + s.name, err, tailOf(s.logPath)}
}

// stop ends the sidecar: politely, then by force. An unclean end is an error.
func (s *sidecar) stop() error {
	if s == nil {
		return nil
	}
	select {
	case <-s.exited:
		return s.died()
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop sidecar %s: %w", s.name, err)
	}
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case <-s.exited:
		if s.err != nil {
			return &childError{"stop sidecar " + s.name, s.err, tailOf(s.logPath)}
		}
		return nil
	case <-timer.C:
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill sidecar %s: %w", s.name, err)
	}
	<-s.exited
	return &childError{"stop sidecar " + s.name, errors.New("it did not end in time and was killed"), tailOf(s.logPath)}
}

// awaitReady waits until the sidecar replicates both ways.
func (r *region) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := "it does not answer"
	for {
		st, err := admin.Fetch(ctx, r.http)
		if err == nil {
			if inStep(st) {
				return nil
			}
			last = describe(st)
		}
		select {
		case <-r.sidecar.exited:
			return r.sidecar.died()
		case <-ctx.Done():
			return &childError{"wait for sidecar " + r.name, fmt.Errorf("%s: %w", last, ctx.Err()), tailOf(r.sidecar.logPath)}
		case <-tick.C:
		}
	}
}

func inStep(st status.Status) bool {
	if st.Outbound == nil || st.Outbound.State != status.Replicating || len(st.Inbound) == 0 {
		return false
	}
	for _, in := range st.Inbound {
		if in.State != status.Replicating {
			return false
		}
	}
	return true
}

func describe(st status.Status) string {
	s := "it is " + string(st.State)
	if o := st.Outbound; o != nil {
		s += fmt.Sprintf(", outbound %s %s", o.State, o.Reason)
	}
	for _, in := range st.Inbound {
		s += fmt.Sprintf(", inbound from %s %s %s", in.Origin, in.State, in.Reason)
	}
	return s
}

// tailOf returns the end of a log, nothing when it cannot be read.
func tailOf(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b[max(0, len(b)-1500):]
}
