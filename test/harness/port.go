package harness

import (
	"fmt"
	"net"
	"sync"
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
