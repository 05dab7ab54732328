package pgcluster

import (
	"net"
	"strconv"
	"testing"
)

// A port can be listened on, is given once, and is none that a connection that goes out may get.
func TestFreePort(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 300 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < portFrom || port >= portTo {
			t.Fatalf("got %d, seen before: %v", port, seen[port])
		}
		seen[port] = true
	}
	for port := range seen {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue // another process has it by now
		}
		l.Close()
		return
	}
	t.Error("none of them can be listened on")
}
