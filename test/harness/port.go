package harness

import (
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
)

// ports remembers what this process has handed out, so that a port that is free because
// its process is just being restarted is not given away a second time.
var ports = struct {
	sync.Mutex
	taken map[int]bool
}{taken: map[int]bool{}}

// FreePort returns a TCP port on loopback that nobody listens on and that this process
// has not handed out before.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find free port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("release port %d: %w", port, err)
		}
		if !ports.taken[port] {
			ports.taken[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("find free port: none left after 100 tries")
}

// newProxy opens a proxy whose port nobody else gets.
func newProxy(target string) (*proxy.Proxy, error) {
	p, err := proxy.New(target)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(p.Addr())
	if err != nil {
		return nil, fmt.Errorf("read address of proxy: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("read port of proxy: %w", err)
	}
	ports.Lock()
	defer ports.Unlock()
	ports.taken[n] = true
	return p, nil
}
