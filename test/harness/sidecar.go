package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"go.yaml.in/yaml/v4"
)

// Sidecar runs the real binary for one region. Settings and environment may be changed
// between two starts; methods are safe for use from any goroutine.
type Sidecar struct {
	Region   string
	Home     string
	LogPath  string
	HTTPAddr string

	mu       sync.Mutex
	conf     map[string]any
	env      map[string]string
	limits   limits
	proc     *Process
	started  int   // how often the process was started
	peak     int64 // highest resident memory of all processes so far
	reviving int   // running Revive goroutines
}

// NewSidecar prepares a sidecar with its settings; nothing runs yet. Keys are dotted
// paths of the configuration file.
func NewSidecar(r *Room, region, name string, settings map[string]any) (*Sidecar, error) {
	home, err := r.Sub(name, false)
	if err != nil {
		return nil, err
	}
	port, err := pgcluster.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		Region: region, Home: home, LogPath: filepath.Join(home, "sidecar.log"), HTTPAddr: fmt.Sprintf("127.0.0.1:%d", port),
		conf: map[string]any{}, env: map[string]string{},
	}
	s.Set("http.listen", s.HTTPAddr)
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		s.Set(k, settings[k])
	}
	return s, nil
}

// copySettings takes over every setting of another sidecar but the address of its own port.
func (s *Sidecar) copySettings(from *Sidecar) error {
	from.mu.Lock()
	text, err := yaml.Marshal(from.conf)
	from.mu.Unlock()
	if err != nil {
		return fmt.Errorf("copy settings of %s: %w", from.Region, err)
	}
	conf := map[string]any{}
	if err := yaml.Unmarshal(text, &conf); err != nil {
		return fmt.Errorf("copy settings of %s: %w", from.Region, err)
	}
	s.mu.Lock()
	s.conf = conf
	s.mu.Unlock()
	s.Set("http.listen", s.HTTPAddr)
	return nil
}

// Set changes one setting for the next start; value nil removes it.
func (s *Sidecar) Set(path string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.conf
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		next, ok := m[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	last := parts[len(parts)-1]
	if value == nil {
		delete(m, last)
		return
	}
	m[last] = value
}

// SetText is Set with a value written in YAML.
func (s *Sidecar) SetText(path, value string) error {
	var v any
	if err := yaml.Unmarshal([]byte(value), &v); err != nil {
		return fmt.Errorf("read value of %s: %w", path, err)
	}
	s.Set(path, v)
	return nil
}

// Setenv sets an environment variable for the next start; an empty value removes it.
func (s *Sidecar) Setenv(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value == "" {
		delete(s.env, name)
		return
	}
	s.env[name] = value
}

// ConfigPath writes the configuration file and returns its name.
func (s *Sidecar) ConfigPath() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := yaml.Marshal(s.conf)
	if err != nil {
		return "", fmt.Errorf("write configuration of %s: %w", s.Region, err)
	}
	path := filepath.Join(s.Home, "config.yaml")
	// By a rename: a sidecar that is just starting must not read half of it.
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		return "", fmt.Errorf("write configuration of %s: %w", s.Region, err)
	}
	return path, nil
}

func (s *Sidecar) environ() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var env []string
	for _, k := range slices.Sorted(maps.Keys(s.env)) {
		env = append(env, k+"="+s.env[k])
	}
	return env
}

// Start starts `pgwaltz run` and returns at once.
func (s *Sidecar) Start() error {
	bin, err := Product()
	if err != nil {
		return err
	}
	conf, err := s.ConfigPath()
	if err != nil {
		return err
	}
	env := s.environ()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.Running() {
		return fmt.Errorf("start sidecar %s: it runs already", s.Region)
	}
	path, args := s.limits.command(bin, []string{"run", "-config", conf})
	p, err := StartProcess(Spec{
		Name: "sidecar " + s.Region, Path: path, Args: args, Env: env, Dir: s.Home, Log: s.LogPath,
	})
	if err != nil {
		return err
	}
	group := filepath.Base(filepath.Dir(s.Home)) + "-" + filepath.Base(s.Home)
	if err := s.limits.apply(p.PID(), group); err != nil {
		p.Kill()
		return err
	}
	go func(l limits) { <-p.Done(); l.release(group) }(s.limits)
	s.proc = p
	s.started++
	return nil
}

// Process is the newest process, nil before the first start.
func (s *Sidecar) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Running reports whether the process runs.
func (s *Sidecar) Running() bool {
	p := s.Process()
	return p != nil && p.Running()
}

// Kill ends the process with kill -9; without a process it does nothing.
func (s *Sidecar) Kill() {
	if p := s.Process(); p != nil {
		s.NotePeak()
		p.Kill()
	}
}

// Stop sends SIGTERM and waits for the end; the exit code is the first result.
func (s *Sidecar) Stop(ctx context.Context, limit time.Duration) (int, error) {
	p := s.Process()
	if p == nil || !p.Running() {
		return -1, fmt.Errorf("stop sidecar %s: it does not run", s.Region)
	}
	s.NotePeak()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return -1, err
	}
	return p.Wait(ctx, limit)
}

// NotePeak reads the memory peak of the running process and returns the highest of all
// processes of this sidecar so far, in bytes.
func (s *Sidecar) NotePeak() int64 {
	p := s.Process()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p != nil {
		s.peak = max(s.peak, p.PeakRSS())
	}
	return s.peak
}

// ResetPeak forgets the peak of earlier processes.
func (s *Sidecar) ResetPeak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peak = 0
}

// CLIResult is the outcome of one command of the binary.
type CLIResult struct {
	Code           int
	Stdout, Stderr string
}

// CLI runs one command of the binary with this sidecar's configuration, for example
// CLI(ctx, "status", "-json"): the -config flag is put right behind the command's name.
func (s *Sidecar) CLI(ctx context.Context, command string, args ...string) (CLIResult, error) {
	bin, err := Product()
	if err != nil {
		return CLIResult{}, err
	}
	conf, err := s.ConfigPath()
	if err != nil {
		return CLIResult{}, err
	}
	cmd := exec.CommandContext(ctx, bin, append([]string{command, "-config", conf}, args...)...)
	cmd.Env = append(os.Environ(), s.environ()...)
	cmd.Dir = s.Home
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	res := CLIResult{Stdout: out.String(), Stderr: errs.String()}
	var ee *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &ee) && ctx.Err() == nil:
		res.Code = ee.ExitCode()
	default:
		return res, fmt.Errorf("run pgwaltz %s: %w", command, err)
	}
	return res, nil
}

// Setup runs `pgwaltz setup`.
func (s *Sidecar) Setup(ctx context.Context) error {
	res, err := s.CLI(ctx, "setup")
	if err != nil {
		return err
	}
	if res.Code != 0 {
		return fmt.Errorf("set up region %s: exit code %d: %s", s.Region, res.Code, strings.TrimSpace(res.Stderr))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return appendFile(filepath.Join(s.Home, "setup.log"), res.Stdout+res.Stderr)
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(path), err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
