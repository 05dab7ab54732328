//go:build unix

package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DialBlocking dials a connection that lives outside of Go's network poller. A walsender
// writes every message by itself; through the poller each of them wakes a thread, also while
// the reader sleeps, which costs more than the reading. A blocking read wakes for what is
// there, and nothing happens during a pause.
//
// Deadlines are looked at every blockingTick. One goroutine may read and write; Close and the
// deadlines may be used from others.
func DialBlocking(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	f, err := c.(interface{ File() (*os.File, error) }).File()
	c.Close() // f is a descriptor of its own
	if err != nil {
		return nil, fmt.Errorf("take connection out of the poller: %w", err)
	}
	b := &blockingConn{file: f, fd: int(f.Fd()), local: c.LocalAddr(), remote: c.RemoteAddr()}
	tick := syscall.NsecToTimeval(int64(blockingTick))
	for _, opt := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(b.fd, syscall.SOL_SOCKET, opt, &tick); err != nil {
			f.Close()
			return nil, fmt.Errorf("take connection out of the poller: %w", err)
		}
	}
	return b, nil
}

// blockingTick is how often a blocked call looks at its deadline.
const blockingTick = 20 * time.Millisecond

type blockingConn struct {
	file          *os.File
	fd            int
	local, remote net.Addr
	read, write   atomic.Int64 // deadlines, Unix nanoseconds; 0 for none
	mu            sync.RWMutex // held for reading while fd is in use
	closed        atomic.Bool
}

func (c *blockingConn) Read(p []byte) (int, error) {
	n, err := c.call(&c.read, func() (int, error) { return syscall.Read(c.fd, p) })
	if n == 0 && err == nil && len(p) > 0 {
		return 0, io.EOF
	}
	return n, err
}

func (c *blockingConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.call(&c.write, func() (int, error) { return syscall.Write(c.fd, p[done:]) })
		done += max(n, 0)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// call repeats a system call until it says something, or the deadline passes.
func (c *blockingConn) call(deadline *atomic.Int64, f func() (int, error)) (int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for {
		if c.closed.Load() {
			return 0, net.ErrClosed
		}
		if d := deadline.Load(); d != 0 && time.Now().UnixNano() >= d {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := f()
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
			return 0, os.NewSyscallError("connection", err)
		}
	}
}

func (c *blockingConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR) // wakes a blocked call
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.file.Close()
}

func (c *blockingConn) LocalAddr() net.Addr  { return c.local }
func (c *blockingConn) RemoteAddr() net.Addr { return c.remote }

func (c *blockingConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *blockingConn) SetReadDeadline(t time.Time) error {
	c.read.Store(unixNano(t))
	return nil
}

func (c *blockingConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(unixNano(t))
	return nil
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixNano(), 1)
}
