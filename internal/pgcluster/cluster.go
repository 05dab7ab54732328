package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says what to start.
type Config struct {
	Bin      string   // the folder of initdb and postgres, from FindBin
	Dir      string   // created; must not exist. Data, socket and log go below it
	Settings []string // lines for postgresql.conf, after our own
}

// Cluster is one PostgreSQL server. Create, Start and Stop are for one goroutine.
type Cluster struct {
	cfg      Config
	port     int
	user     *account // nil: our own
	password string
	server   *exec.Cmd
	exited   chan struct{} // closed when the server process has gone
}

// Create makes the folder and runs initdb (without fsync: nothing of value is in it yet).
func Create(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg}
	var err error
	if c.user, err = serverAccount(); err != nil {
		return nil, err
	}
	if c.password, err = randomPassword(); err != nil {
		return nil, err
	}
	if err := c.makeDirs(); err != nil {
		return nil, fmt.Errorf("create cluster folder: %w", err)
	}
	pwfile := filepath.Join(cfg.Dir, "pwfile")
	if err := os.WriteFile(pwfile, []byte(c.password+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write cluster password: %w", err)
	}
	defer os.Remove(pwfile)
	if err := c.own(pwfile); err != nil {
		return nil, err
	}
	initdb := c.command(ctx, "initdb", "-D", c.data(), "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
		"--pwfile="+pwfile, "--encoding=UTF8", "--locale=C", "--no-sync")
	var out bytes.Buffer
	initdb.Stdout, initdb.Stderr = &out, &out
	if err := initdb.Run(); err != nil {
		return nil, fmt.Errorf("run initdb: %w: %s", err, tail(out.Bytes()))
	}
	if c.port, err = FreePort(); err != nil {
		return nil, err
	}
	return c, c.configure()
}

func (c *Cluster) makeDirs() error {
	for _, dir := range []string{c.cfg.Dir, c.data(), c.Socket()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := c.own(dir); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) configure() error {
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure cluster: %w", err)
	}
	lines := append([]string{
		"port = " + strconv.Itoa(c.port), "listen_addresses = '127.0.0.1'", "unix_socket_directories = '" + c.Socket() + "'",
		"unix_socket_permissions = 0700", "wal_level = logical", "max_connections = 60", "max_wal_senders = 10", "max_replication_slots = 10",
		"shared_buffers = 64MB", "timezone = 'UTC'", "log_timezone = 'UTC'",
	}, c.cfg.Settings...)
	for _, line := range lines {
		if _, err := fmt.Fprintln(f, line); err != nil {
			f.Close()
			return fmt.Errorf("configure cluster: %w", err)
		}
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("configure cluster: %w", err)
	}
	return nil
}

// Start starts the server and waits until it accepts connections. The server outlives ctx,
// which only bounds the waiting: Stop ends it.
func (c *Cluster) Start(ctx context.Context) error {
	log, err := os.OpenFile(c.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open server log: %w", err)
	}
	defer log.Close() // the server has its own copy
	cmd := c.command(context.WithoutCancel(ctx), "postgres", "-D", c.data())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	c.server, c.exited = cmd, make(chan struct{})
	go func(done chan struct{}) { // ends with the process; Stop waits for it
		_ = cmd.Wait() // how it ended stands in the server log
		close(done)
	}(c.exited)
	if err := c.awaitReady(ctx); err != nil {
		return errors.Join(err, c.Stop())
	}
	return nil
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.exited:
			log, _ := os.ReadFile(c.Log()) // best effort: the error stands without it
			return fmt.Errorf("start postgres: the server exited: %s", tail(log))
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres: %w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Stop ends the server: a fast shutdown, then after ten seconds an immediate one, then a
// kill. It returns when the process has gone. Stopping a stopped cluster does nothing.
func (c *Cluster) Stop() error {
	if c.server == nil {
		return nil
	}
	defer func() { c.server = nil }()
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 10 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := c.server.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop postgres: %w", err)
		}
		timer := time.NewTimer(step.wait)
		select {
		case <-c.exited:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	return fmt.Errorf("stop postgres: process %d does not go away", c.server.Process.Pid)
}

// PID is the server's process id, 0 when it is not running.
func (c *Cluster) PID() int {
	if c.server == nil {
		return 0
	}
	return c.server.Process.Pid
}

// DSN is a connection string of the superuser to a database through the unix socket, or
// through the loopback port where the socket's path is too long for one.
func (c *Cluster) DSN(database string) string {
	if len(c.Socket()) < 85 { // the limit is 107 bytes with the file name
		return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s", c.Socket(), c.port, database)
	}
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=%s dbname=%s", c.port, c.password, database)
}

// Socket is the folder of the unix socket.
func (c *Cluster) Socket() string { return filepath.Join(c.cfg.Dir, "s") }

// Log is the path of the server log.
func (c *Cluster) Log() string { return filepath.Join(c.cfg.Dir, "postgres.log") }

func (c *Cluster) data() string { return filepath.Join(c.cfg.Dir, "data") }

func tail(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[max(0, len(b)-600):]
}
