package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// Cluster is one PostgreSQL cluster on loopback and a unix socket, superuser postgres,
// no password. The postmaster is a direct child of this process.
type Cluster struct {
	Name    string
	DataDir string
	Port    int
	LogPath string

	bin     Binaries
	env     []string
	sockDir string
	mount   string // tmpfs mount point, when one was made
	clock   string // file that its clock follows
	mu      sync.Mutex
	proc    *Process
	frozen  []int
}

// ClusterConfig are the choices at the birth of a cluster.
type ClusterConfig struct {
	Name     string
	Fsync    bool              // off is faster and survives everything but a crash of the machine
	Settings map[string]string // extra lines of postgresql.conf
	TmpfsMB  int               // data folder on a tmpfs of this size (needs root)
	// WALTmpfsMB, above 0, puts pg_wal alone on a tmpfs of this size (needs root).
	WALTmpfsMB int
	Clock      bool     // its clock can be set off (needs libfaketime)
	Env        []string // NAME=value, for the server's processes
}

// NewCluster makes the files of a cluster from a template of its own, so that clusters of
// different names have different system identifiers. It does not start it.
func NewCluster(r *Room, bin Binaries, c ClusterConfig) (*Cluster, error) {
	return newClusterFrom(r, bin, c, c.Name)
}

func newClusterFrom(r *Room, bin Binaries, c ClusterConfig, template string) (*Cluster, error) {
	port, err := pgcluster.FreePort()
	if err != nil {
		return nil, err
	}
	home, err := r.Sub(c.Name, true)
	if err != nil {
		return nil, err
	}
	k := &Cluster{
		Name: c.Name, DataDir: filepath.Join(home, "data"), Port: port,
		LogPath: filepath.Join(home, "postgres.log"), bin: bin, env: c.Env, sockDir: home,
	}
	if c.TmpfsMB > 0 {
		if err := os.MkdirAll(k.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
		if err := mountTmpfs(k.DataDir, c.TmpfsMB); err != nil {
			return nil, err
		}
		k.mount = k.DataDir
	}
	if err := templates.copyTo(bin, template, k.DataDir); err != nil {
		return nil, err
	}
	if err := k.writeConf(c); err != nil {
		return nil, err
	}
	if c.WALTmpfsMB > 0 {
		if err := k.walTmpfs(c.WALTmpfsMB); err != nil {
			return nil, err
		}
	}
	if c.Clock {
		k.clock = filepath.Join(home, "clock")
		env, err := ClockEnv(k.clock)
		if err != nil {
			return nil, err
		}
		k.env = append(k.env, env...)
	}
	return k, nil
}

// walTmpfs moves pg_wal to a tmpfs of its own.
func (k *Cluster) walTmpfs(mb int) error {
	from, to := filepath.Join(k.DataDir, "pg_wal"), filepath.Join(k.sockDir, "wal")
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("make folder of the WAL: %w", err)
	}
	if err := mountTmpfs(to, mb); err != nil {
		return err
	}
	k.mount = to
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		return fmt.Errorf("move WAL: %w: %s", err, out)
	}
	if err := errors.Join(os.RemoveAll(from), os.Symlink(to, from)); err != nil {
		return fmt.Errorf("move WAL: %w", err)
	}
	return nil
}

func (k *Cluster) writeConf(c ClusterConfig) error {
	s := map[string]string{
		"listen_addresses": "'127.0.0.1'", "port": fmt.Sprint(k.Port), "unix_socket_directories": "'" + k.sockDir + "'",
		"wal_level": "logical", "max_replication_slots": "30", "max_wal_senders": "30", "max_connections": "80",
		"max_prepared_transactions": "10", "shared_buffers": "'32MB'", "fsync": "off", "full_page_writes": "on",
		"max_wal_size": "'1GB'", "log_line_prefix": "'%m [%p] %d %a '", "timezone": "'UTC'", "log_timezone": "'UTC'",
		"wal_sender_timeout": "'60s'", "log_min_messages": "warning", "checkpoint_timeout": "'15min'",
		"autovacuum_naptime": "'1min'", "logging_collector": "off", "lc_messages": "'C'",
	}
	if c.Fsync {
		s["fsync"] = "on"
	}
	// PGWALTZ_TEST_SETTINGS="name=value name=value" runs any test or case on other servers.
	for _, one := range strings.Fields(os.Getenv("PGWALTZ_TEST_SETTINGS")) {
		if name, v, ok := strings.Cut(one, "="); ok {
			s[name] = "'" + v + "'"
		}
	}
	for name, v := range c.Settings {
		s[name] = v
	}
	text := ""
	for name, v := range s {
		text += name + " = " + v + "\n"
	}
	path := filepath.Join(k.DataDir, "pgwaltz.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write settings of cluster %s: %w", k.Name, err)
	}
	f, err := os.OpenFile(filepath.Join(k.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open settings of cluster %s: %w", k.Name, err)
	}
	defer f.Close()
	if _, err := f.WriteString("\ninclude 'pgwaltz.conf'\n"); err != nil {
		return fmt.Errorf("append settings of cluster %s: %w", k.Name, err)
	}
	return chownServer(path)
}

// DSN is the connection string for a database over loopback TCP.
func (k *Cluster) DSN(database string) string {
	return k.DSNVia(fmt.Sprintf("127.0.0.1:%d", k.Port), database)
}

// DSNVia is the connection string through another address, for example that of a proxy.
func (k *Cluster) DSNVia(addr, database string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable", host, port, database)
}

// Addr is the loopback address of the server.
func (k *Cluster) Addr() string { return fmt.Sprintf("127.0.0.1:%d", k.Port) }

// Running reports whether the postmaster runs.
func (k *Cluster) Running() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proc != nil && k.proc.Running()
}

// StartNoWait starts the postmaster and returns at once.
func (k *Cluster) StartNoWait() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.proc != nil && k.proc.Running() {
		return fmt.Errorf("start cluster %s: it runs already", k.Name)
	}
	cred, err := serverUser()
	if err != nil {
		return err
	}
	p, err := StartProcess(Spec{
		Name: "postgres " + k.Name, Path: k.bin.Path("postgres"), Args: []string{"-D", k.DataDir},
		Env: append([]string{"LC_ALL=C.UTF-8", "PGDATA="}, k.env...), Dir: k.sockDir, Log: k.LogPath, Cred: cred,
	})
	if err != nil {
		return err
	}
	k.proc, k.frozen = p, nil
	return nil
}

// Start starts the cluster and waits until it accepts connections. After a kill -9 the
// shared memory of the dead one may still be in use for a moment: Start tries again.
func (k *Cluster) Start(ctx context.Context) error {
	if err := k.StartNoWait(); err != nil {
		return err
	}
	return Poll(ctx, 90*time.Second, 30*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if !k.Running() {
			if err := k.StartNoWait(); err != nil {
				return false, "", err
			}
		}
		c, err := k.Connect(ctx, "postgres")
		if err != nil {
			return false, "cluster " + k.Name + " to accept connections: " + err.Error(), nil
		}
		_ = c.Close(ctx)
		return true, "", nil
	})
}

// Connect opens a pgx connection; the caller closes it.
func (k *Cluster) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgx.Connect(ctx, k.DSN(database)+" application_name=harness connect_timeout=5")
}

// StopMode is one of the ways to stop a cluster.
type StopMode string

// The modes of pg_ctl, and kill -9 of the postmaster.
const (
	StopSmart     StopMode = "smart"
	StopFast      StopMode = "fast"
	StopImmediate StopMode = "immediate"
	StopKill      StopMode = "kill"
)

// Stop stops the cluster and waits until it is gone.
func (k *Cluster) Stop(ctx context.Context, mode StopMode, limit time.Duration) error {
	k.mu.Lock()
	p := k.proc
	k.mu.Unlock()
	if p == nil || !p.Running() {
		return fmt.Errorf("stop cluster %s: it does not run", k.Name)
	}
	sig, ok := map[StopMode]syscall.Signal{StopSmart: syscall.SIGTERM, StopFast: syscall.SIGINT, StopImmediate: syscall.SIGQUIT, StopKill: syscall.SIGKILL}[mode]
	if !ok {
		return fmt.Errorf("stop cluster %s: unknown mode %q", k.Name, mode)
	}
	k.Continue()
	if err := p.Signal(sig); err != nil {
		return err
	}
	if _, err := p.Wait(ctx, limit); err != nil {
		return fmt.Errorf("stop cluster %s (%s): %w", k.Name, mode, err)
	}
	return nil
}

// Freeze stops every process of the cluster (SIGSTOP) until Continue.
func (k *Cluster) Freeze() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.proc == nil || !k.proc.Running() {
		return fmt.Errorf("freeze cluster %s: it does not run", k.Name)
	}
	k.frozen = append([]int{k.proc.PID()}, descendants(k.proc.PID())...)
	for _, pid := range k.frozen {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("freeze cluster %s: %w", k.Name, err)
		}
	}
	return nil
}

// Continue ends a Freeze; without one it does nothing.
func (k *Cluster) Continue() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pid := range k.frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	k.frozen = nil
}

// Remount changes the size of the tmpfs that holds the data folder, or the WAL.
func (k *Cluster) Remount(mb int) error {
	if k.mount == "" {
		return fmt.Errorf("remount files of %s: they are on no tmpfs", k.Name)
	}
	if out, err := exec.Command("mount", "-o", fmt.Sprintf("remount,size=%dm", mb), k.mount).CombinedOutput(); err != nil {
		return fmt.Errorf("remount files of %s: %w: %s", k.Name, err, out)
	}
	return nil
}

// Copy makes a cold copy of the data folder under the given name; the cluster must be
// stopped. Restore puts it back.
func (k *Cluster) Copy(name string) error {
	return copyTree(k.DataDir, filepath.Join(k.sockDir, "copy-"+name))
}

// Restore puts a cold copy in place of the data folder; the cluster must be stopped.
func (k *Cluster) Restore(name string) error {
	if k.Running() {
		return fmt.Errorf("restore cluster %s: it runs", k.Name)
	}
	if err := os.RemoveAll(k.DataDir); err != nil {
		return fmt.Errorf("remove data folder of %s: %w", k.Name, err)
	}
	return copyTree(filepath.Join(k.sockDir, "copy-"+name), k.DataDir)
}

// Dump writes a database as SQL text into a file, with pg_dump.
func (k *Cluster) Dump(ctx context.Context, database, path string) error {
	cmd := exec.CommandContext(ctx, k.bin.Path("pg_dump"), "-d", k.DSN(database), "-f", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dump database %s of cluster %s: %w: %s", database, k.Name, err, out)
	}
	return nil
}

// Load runs a file of SQL text in a database, with psql; the first error ends it.
func (k *Cluster) Load(ctx context.Context, database, path string) error {
	cmd := exec.CommandContext(ctx, k.bin.Path("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.DevNull, "-d", k.DSN(database), "-f", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load database %s of cluster %s: %w: %s", database, k.Name, err, out)
	}
	return nil
}

// Close stops the cluster at once and gives the tmpfs back.
func (k *Cluster) Close() {
	if k.Running() {
		if err := k.Stop(context.Background(), StopImmediate, 20*time.Second); err != nil {
			k.proc.Kill()
		}
	}
	if k.mount != "" {
		_ = exec.Command("umount", "-l", k.mount).Run()
		k.mount = ""
	}
}
