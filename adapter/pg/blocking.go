//go:build unix

package pg

import (
	"context"
	"errors"
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
	to, family, local, err := sockaddr(network, addr)
	if err != nil {
		return nil, err
	}
	// Made here and not taken from package net: a descriptor that was in the poller once
	// stays there as long as a duplicate of it lives.
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	syscall.CloseOnExec(fd)
	b := &blockingConn{file: os.NewFile(uintptr(fd), addr), fd: fd, local: local, remote: local}
	if err := b.connect(ctx, to, family); err != nil {
		b.file.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Addr: local, Err: err}
	}
	return b, nil
}

func sockaddr(network, addr string) (syscall.Sockaddr, int, net.Addr, error) {
	if network == "unix" {
		return &syscall.SockaddrUnix{Name: addr}, syscall.AF_UNIX, &net.UnixAddr{Name: addr, Net: "unix"}, nil
	}
	tcp, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return nil, 0, nil, err
	}
	if ip := tcp.IP.To4(); ip != nil {
		to := &syscall.SockaddrInet4{Port: tcp.Port}
		copy(to.Addr[:], ip)
		return to, syscall.AF_INET, tcp, nil
	}
	to := &syscall.SockaddrInet6{Port: tcp.Port}
	copy(to.Addr[:], tcp.IP.To16())
	return to, syscall.AF_INET6, tcp, nil
}

func (c *blockingConn) connect(ctx context.Context, to syscall.Sockaddr, family int) error {
	limit := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(d), blockingTick))
	}
	if err := c.timeout(syscall.SO_SNDTIMEO, limit); err != nil { // bounds the connect, too
		return err
	}
	if family != syscall.AF_UNIX {
		for _, o := range [][3]int{
			{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1}, {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		} {
			if err := syscall.SetsockoptInt(c.fd, o[0], o[1], o[2]); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
	}
	for {
		err := syscall.Connect(c.fd, to)
		if err == nil || errors.Is(err, syscall.EISCONN) {
			break
		}
		if errors.Is(err, syscall.EINTR) && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, syscall.EINPROGRESS) || errors.Is(err, syscall.EAGAIN) {
			return os.ErrDeadlineExceeded
		}
		return os.NewSyscallError("connect", err)
	}
	return errors.Join(c.timeout(syscall.SO_SNDTIMEO, blockingTick), c.timeout(syscall.SO_RCVTIMEO, blockingTick))
}

func (c *blockingConn) timeout(option int, d time.Duration) error {
	tv := syscall.NsecToTimeval(int64(d))
	return os.NewSyscallError("setsockopt", syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, option, &tv))
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
