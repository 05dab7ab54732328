package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrStoreInUse: another process has the store open. Two servers over one store destroy it.
var ErrStoreInUse = errors.New("the store is in use by another process")

// embedded is the server inside the process. It can be started again in place: clients ask
// it for a connection whenever they reconnect, and get one to the server of the moment.
type embedded struct {
	cfg      *Config
	log      *serverLog
	password string // of localUser, made anew for each process
	listen   string // with the port that was chosen, so that a restart keeps it
	client   string

	doorman atomic.Pointer[doorman] // of the newest start

	lazy    atomic.Bool // messages may be acknowledged before they are on disk
	waits   atomic.Bool // they are not, all the same, in this start
	unsure  atomic.Bool // what was acknowledged before may be gone
	relied  atomic.Bool // the stream holds what is nowhere else
	flusher flusher

	mu   sync.RWMutex
	srv  *server.Server
	lock *os.File
}

func newEmbedded(cfg *Config, log *serverLog) (*embedded, error) {
	e := &embedded{cfg: cfg, log: log, password: rand.Text()}
	var err error
	if e.listen, err = fixedPort(cfg.Listen); err != nil {
		return nil, err
	}
	e.client, err = fixedPort(cfg.ClientListen)
	return e, err
}

// fixedPort replaces port 0 by a free one.
func fixedPort(addr string) (string, error) {
	if _, port, _ := net.SplitHostPort(addr); addr == "" || port != "0" {
		return addr, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("choose port for %s: %w", addr, err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// InProcessConn gives the NATS client a connection to the running server.
func (e *embedded) InProcessConn() (net.Conn, error) {
	srv := e.server()
	if srv == nil {
		return nil, errors.New("the embedded server is not running")
	}
	return srv.InProcessConn()
}

func (e *embedded) server() *server.Server {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.srv
}

// natsDir is the server's own folder: it may move files that lie beside its data.
func (e *embedded) natsDir() string { return filepath.Join(e.cfg.StoreDir, "nats") }

func (e *embedded) jetstreamDir() string { return filepath.Join(e.natsDir(), server.JetStreamStoreDir) }

// start creates and locks the store and starts the server.
func (e *embedded) start() error {
	if err := os.MkdirAll(e.natsDir(), 0o700); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	lock, err := lockStore(e.cfg.StoreDir)
	if err != nil {
		return err
	}
	srv, err := (*server.Server)(nil), e.prepare()
	if err == nil {
		srv, err = e.run()
	}
	if err != nil {
		_ = lock.Close()
		return fmt.Errorf("start embedded server: %w", err)
	}
	e.mu.Lock()
	e.srv, e.lock = srv, lock
	e.mu.Unlock()
	return nil
}

func (e *embedded) run() (*server.Server, error) {
	opts, err := e.options()
	if err != nil {
		return nil, err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	e.log.fatal.Store(nil)
	srv.SetLogger(e.log, false, false)
	srv.Start()
	if text := e.log.fatal.Load(); text != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New(*text)
	}
	if !srv.ReadyForConnections(10*time.Second) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("not ready within 10s")
	}
	return srv, nil
}

// stop ends the server and returns when everything is on disk.
func (e *embedded) stop() {
	e.mu.Lock()
	srv, lock := e.srv, e.lock
	e.srv, e.lock = nil, nil
	e.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		e.rest()
	}
	if lock != nil {
		_ = lock.Close()
	}
}
