package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

const (
	retryListen  = time.Second
	stopPatience = 2 * time.Second
)

// Config is what a Server needs. Status and Alive are called by requests, concurrently, and
// must answer at once.
type Config struct {
	// Listen is host:port; port 0 takes a free one. "" serves nothing.
	Listen string
	// AddressFile, when set, holds the address in use while the server listens, so that
	// `pgwaltz status` finds a sidecar with port 0.
	AddressFile string
	Registry    prometheus.Gatherer
	Status      func() status.Status
	// Alive returns why a loop is stuck, nil while all turn. A nil func means always alive.
	Alive func() error
	Log   *slog.Logger
}

// Server serves the endpoints. New does no I/O; Run does everything.
type Server struct {
	cfg  Config
	addr atomic.Pointer[string]
}

// New returns a Server for cfg.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg}
}

// Addr is the address in use, "" while there is none.
func (s *Server) Addr() string {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// Run listens and serves until ctx ends, then returns nil. A port that is taken (the other
// sidecar of this region has it) is tried again every second and never an error: without
// its HTTP side a sidecar still replicates. Only an address that can never work is one.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.Listen == "" {
		<-ctx.Done()
		return nil
	}
	if _, _, err := net.SplitHostPort(s.cfg.Listen); err != nil {
		return fmt.Errorf("listen on http address %q: %w", s.cfg.Listen, err)
	}
	listener := s.listen(ctx)
	if listener == nil {
		return nil
	}
	address := listener.Addr().String()
	s.addr.Store(&address)
	defer s.addr.Store(new(string))
	s.cfg.Log.Info("http is listening", "address", address)
	defer s.publishAddress(address)()
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1) // room for the result, so that the goroutine ends in any case
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close() // cut what does not finish; there is nothing to lose
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}

// listen returns nil when ctx ends first.
func (s *Server) listen(ctx context.Context) net.Listener {
	var lc net.ListenConfig
	tick := time.NewTicker(retryListen)
	defer tick.Stop()
	for said := false; ; {
		listener, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
		if err == nil {
			return listener
		}
		if !said && ctx.Err() == nil {
			s.cfg.Log.Info("http address is not free, trying again until it is", "address", s.cfg.Listen, "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// publishAddress writes AddressFile and returns what removes it. A failure is worth a line, no more.
func (s *Server) publishAddress(address string) func() {
	path := s.cfg.AddressFile
	if path == "" {
		return func() {}
	}
	temporary := path + ".new"
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(temporary, []byte(address+"\n"), 0o644)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		s.cfg.Log.Warn("http address file is not written", "path", path, "error", err)
		return func() {}
	}
	return func() {
		// Another sidecar may have taken over and written its own.
		if b, err := os.ReadFile(path); err == nil && string(b) == address+"\n" {
			_ = os.Remove(path) // a stale file only costs the reader a refused connection
		}
	}
}
