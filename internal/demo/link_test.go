package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers what it is sent.
func echo(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func talk(c net.Conn) error {
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestLinkCutAndHeal(t *testing.T) {
	t.Parallel()
	l, err := openLink(echo(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.serve(ctx) }()
	before := dial(t, l.addr())
	if err := talk(before); err != nil {
		t.Fatal(err)
	}
	l.cut()
	if err := talk(before); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a connection outlived the cut: %v", err)
	}
	if err := talk(dial(t, l.addr())); err == nil {
		t.Fatal("a connection was made during the cut")
	}
	if l.up() {
		t.Fatal("the link says it is up")
	}
	l.heal()
	after := dial(t, l.addr())
	if err := talk(after); err != nil {
		t.Fatal(err)
	}
	if l.bytes.Load() < 16 {
		t.Fatalf("carried %d bytes", l.bytes.Load())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := talk(after); err == nil {
		t.Fatal("a connection outlived the link")
	}
}
