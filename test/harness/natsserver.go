package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// childEnv names the environment variable that turns this program into a NATS server.
const childEnv = "PGWALTZ_HARNESS_NATS"

type natsConfig struct {
	Port  int
	Store string
	Max   int64
}

// RunChild must be called first thing in main or TestMain: a copy of this program that
// NATS.Start has started becomes the NATS server and never returns.
func RunChild() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	if err := serveNATS(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveNATS(text string) error {
	var c natsConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("read server settings: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "harness", Host: "127.0.0.1", Port: c.Port, JetStream: true, StoreDir: c.Store,
		JetStreamMaxStore: c.Max, JetStreamMaxMemory: 64 << 20, SyncAlways: true, NoSigs: true,
	})
	if err != nil {
		return fmt.Errorf("make nats server: %w", err)
	}
	s.ConfigureLogger()
	s.Start()
	stop := make(chan os.Signal, 1) // one signal is enough to stop
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// NATS is an external nats-server with JetStream, as a child process that can be stopped,
// killed and frozen.
type NATS struct {
	Port  int
	Store string
	Log   string
	max   int64
	mount bool   // the folder around the store is a tmpfs
	conf  string // configuration file of a node of a cluster; "" for a server of its own
	proc  *Process
	// Routes are the links between this node and the others of its cluster.
	Routes []*proxy.Proxy
}

// NewNATS prepares a server whose store lies in the room; Start starts it.
func NewNATS(r *Room, name string) (*NATS, error) {
	port, err := pgcluster.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := r.Sub(name, false)
	if err != nil {
		return nil, err
	}
	return &NATS{Port: port, Store: filepath.Join(dir, "js"), Log: filepath.Join(dir, "nats.log"), max: 8 << 30}, nil
}

// Addr is the loopback address of the client port.
func (n *NATS) Addr() string { return fmt.Sprintf("127.0.0.1:%d", n.Port) }

// Running reports whether the server process runs.
func (n *NATS) Running() bool { return n.proc != nil && n.proc.Running() }

// Process is the server's process, nil before the first Start.
func (n *NATS) Process() *Process { return n.proc }

// Start starts the server and waits until it answers.
func (n *NATS) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start nats: it runs already")
	}
	if n.conf != "" {
		return n.startNode(ctx)
	}
	conf, err := json.Marshal(natsConfig{Port: n.Port, Store: n.Store, Max: n.max})
	if err != nil {
		return fmt.Errorf("write server settings: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	n.proc, err = StartProcess(Spec{Name: "nats", Path: self, Env: []string{childEnv + "=" + string(conf)}, Log: n.Log})
	if err != nil {
		return err
	}
	return Poll(ctx, 30*time.Second, 20*time.Millisecond, func(context.Context) (bool, string, error) {
		if !n.Running() {
			return false, "", fmt.Errorf("start nats: it ended with code %d, see %s", n.proc.ExitCode(), n.Log)
		}
		c, err := nats.Connect(n.Addr(), nats.NoReconnect(), nats.Timeout(time.Second))
		if err != nil {
			return false, "nats to answer", nil
		}
		defer c.Close()
		js, err := jetstream.New(c)
		if err != nil {
			return false, "", err
		}
		if _, err := js.AccountInfo(ctx); err != nil {
			return false, "jetstream to answer: " + err.Error(), nil
		}
		return true, "", nil
	})
}

// Stop ends the server in order and waits for it.
func (n *NATS) Stop(ctx context.Context) error {
	if !n.Running() {
		return fmt.Errorf("stop nats: it does not run")
	}
	if err := n.proc.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_, err := n.proc.Wait(ctx, 20*time.Second)
	return err
}

// Kill ends the server with kill -9.
func (n *NATS) Kill() {
	if n.Running() {
		n.proc.Kill()
	}
}

// Tmpfs puts the store on a tmpfs of the given size, or changes the size of that tmpfs. The
// first call comes before the first start. It needs root.
func (n *NATS) Tmpfs(mb int) error {
	dir := filepath.Dir(n.Store)
	args := []string{"-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mb), "tmpfs", dir}
	if n.mount {
		args = []string{"-o", fmt.Sprintf("remount,size=%dm", mb), dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mount tmpfs for the store: %w: %s", err, out)
	}
	n.mount = true
	return nil
}

// Close ends the server.
func (n *NATS) Close() {
	n.Kill()
	for _, r := range n.Routes {
		r.Close()
	}
	n.Routes = nil
	if n.mount {
		_ = exec.Command("umount", "-l", filepath.Dir(n.Store)).Run()
		n.mount = false
	}
}

// Client opens a connection that bypasses the proxies; the caller closes it.
func (n *NATS) Client() (*nats.Conn, jetstream.JetStream, error) {
	return natsClient(n.Addr())
}

// natsClient connects to the first of some addresses, separated by commas, that answers.
func natsClient(addrs string) (*nats.Conn, jetstream.JetStream, error) {
	c, err := nats.Connect(addrs, nats.Name("harness"), nats.Timeout(5*time.Second))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to nats: %w", err)
	}
	js, err := jetstream.New(c)
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("open jetstream: %w", err)
	}
	return c, js, nil
}
