package pgcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports that are tried lie below those that Linux gives to connections that go out (ip_local_port_range, from 32768 on): one of these
// might be taken between the moment it was found free and the moment its server listens.
const (
	portFrom  = 15000
	portTo    = 32768
	portTries = 200
)

var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// FreePort returns a TCP port of the loopback interface on which nobody listens, another one at each call. Safe for concurrent use.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	err := errors.New("all were given out")
	for range portTries {
		port := portFrom + rand.IntN(portTo-portFrom)
		if ports.given[port] {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("release port %d: %w", port, err)
		}
		ports.given[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("find a free port: none of %d tries: %w", portTries, err)
}
