package pg

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func TestDialQuiet(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			peer <- c
		}
	}()
	c, err := DialQuiet(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := <-peer
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := p.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("peer read %q, %v", buf[:n], err)
	}
	// A deadline ends a read that is blocked already, and the connection stays usable.
	got := make(chan error, 1)
	go func() { _, err := c.Read(buf); got <- err }()
	c.SetReadDeadline(time.Unix(1, 0))
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read past the deadline: %v", err)
	}
	var timeout net.Error
	if !errors.As(os.ErrDeadlineExceeded, &timeout) || !timeout.Timeout() {
		t.Fatal("a passed deadline must look like a timeout")
	}
	c.SetReadDeadline(time.Time{})
	p.Write([]byte("pong"))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "pong" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	p.Close()
	if _, err := c.Read(buf); !errors.Is(err, io.EOF) {
		t.Fatalf("read at the end: %v", err)
	}
	// Close wakes a blocked read.
	c2, err := DialQuiet(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, err := c2.Read(buf); got <- err }()
	c2.Close()
	if err := <-got; err == nil {
		t.Fatal("read on a closed connection")
	}
	if err := c2.Close(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
	c.Close()
}
