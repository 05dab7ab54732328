package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// SQLError is what psql said about a statement that failed.
type SQLError struct {
	SQLState string // only when verbose states were asked for
	Text     string
}

func (e *SQLError) Error() string { return "psql: " + e.Text }

func (k *Cluster) psqlArgs(database string) []string {
	return []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", k.DSN(database)}
}

// PSQL runs a text of statements and meta commands in one psql session in autocommit and
// returns what it printed, unaligned and without headers. It stops at the first error.
func (k *Cluster) PSQL(ctx context.Context, database, text string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.bin.Path("psql"), append(k.psqlArgs(database), args...)...)
	cmd.Stdin = strings.NewReader(text)
	cmd.Env = append(cmd.Environ(), "PGCLIENTENCODING=UTF8", "PGOPTIONS=-c client_min_messages=warning", "PGCONNECT_TIMEOUT=10")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), &SQLError{Text: strings.TrimSpace(errs.String() + " (" + err.Error() + ")"), SQLState: stateOf(errs.String())}
	}
	return out.String(), nil
}

var stateRE = regexp.MustCompile(`(?m)(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5})(?::|\s*$)`)

func stateOf(stderr string) string {
	if m := stateRE.FindStringSubmatch(stderr); m != nil {
		return m[1]
	}
	return ""
}

// SQLState runs a text and returns the SQLSTATE of its first error, empty when it had none.
func (k *Cluster) SQLState(ctx context.Context, database, text string) (string, error) {
	_, err := k.PSQL(ctx, database, "\\set VERBOSITY sqlstate\n"+text)
	var se *SQLError
	if errors.As(err, &se) {
		if se.SQLState == "" {
			return "", err
		}
		return se.SQLState, nil
	}
	return "", err
}

// Session is a psql process that stays open between statements. Its methods must not be
// called concurrently.
type Session struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // output lines; the buffer only decouples the reader goroutine
	errs   *lockedBuffer
	marker atomic.Int64
}

// OpenSession starts a psql that stays open until Close.
func (k *Cluster) OpenSession(database string) (*Session, error) {
	args := append(k.psqlArgs(database), "-v", "ON_ERROR_STOP=0")
	cmd := exec.Command(k.bin.Path("psql"), args...)
	cmd.Env = append(cmd.Environ(), "PGCLIENTENCODING=UTF8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	s := &Session{cmd: cmd, in: in, lines: make(chan string, 1024), errs: &lockedBuffer{}}
	cmd.Stderr = s.errs
	if err := spawner.start(cmd); err != nil {
		return nil, fmt.Errorf("start psql: %w", err)
	}
	go func() {
		defer close(s.lines)
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 64<<20)
		for sc.Scan() {
			s.lines <- sc.Text()
		}
	}()
	return s, nil
}

// Send hands a text to the session without waiting for it.
func (s *Session) Send(text string) error {
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		return fmt.Errorf("send to session: %w", err)
	}
	return nil
}

// Run hands a text to the session and waits until it is done; it returns the output, and
// what psql wrote to stderr as an error.
func (s *Session) Run(ctx context.Context, text string) (string, error) {
	s.errs.Reset()
	mark := fmt.Sprintf("--done-%d--", s.marker.Add(1))
	// Two pipes have no order between them: each of them has its own mark.
	if err := s.Send(text + "\n;\n\\warn " + mark + "\n\\echo " + mark); err != nil {
		return "", err
	}
	var out []string
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return "", &SQLError{Text: "session ended: " + s.errs.String()}
			}
			if line == mark {
				said, err := s.errs.until(ctx, mark)
				if err != nil {
					return "", fmt.Errorf("wait for session: %w", err)
				}
				if e := strings.TrimSpace(said); strings.Contains(e, "ERROR:") || strings.Contains(e, "FATAL:") {
					return strings.Join(out, "\n"), &SQLError{Text: e}
				}
				return strings.Join(out, "\n"), nil
			}
			out = append(out, line)
		case <-ctx.Done():
			return "", fmt.Errorf("wait for session: %w", ctx.Err())
		}
	}
}

// Close ends the session at once; an open transaction is rolled back.
func (s *Session) Close() {
	_ = s.in.Close()
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	for range s.lines {
		continue // let the reader finish
	}
	_ = s.cmd.Wait()
}

// lockedBuffer collects what one goroutine writes for another one that reads.
type lockedBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	wrote chan struct{} // closed at the next write; nil while nobody waits
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wrote != nil {
		close(b.wrote)
		b.wrote = nil
	}
	return b.buf.Write(p)
}

// until waits for the mark and returns what was written before it.
func (b *lockedBuffer) until(ctx context.Context, mark string) (string, error) {
	for {
		b.mu.Lock()
		before, _, found := strings.Cut(b.buf.String(), mark)
		if b.wrote == nil {
			b.wrote = make(chan struct{})
		}
		wrote := b.wrote
		b.mu.Unlock()
		if found {
			return before, nil
		}
		select {
		case <-wrote:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
