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

// DialQuiet dials a connection for many small messages, with a buffer of its own. A walsender
// writes every message by itself; in Go's network poller each of them wakes a thread, also
// while the reader is busy or sleeps, which costs more than the reading. Here the socket is in
// an epoll set of its own that is armed only while a read waits, and only that set is in the
// poller. So a read never blocks a thread, and nothing happens while nobody waits.
//
// One goroutine may read and write; Close and the deadlines may be used from others.
func DialQuiet(ctx context.Context, network, addr string) (net.Conn, error) {
	to, family, remote, err := sockaddr(network, addr)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: remote, Err: err}
	}
	// Made here and not taken from package net: a descriptor that was in the poller once
	// stays there as long as a duplicate of it lives.
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(os.NewSyscallError("socket", err))
	}
	if err := connect(ctx, fd, to, family); err != nil {
		syscall.Close(fd)
		return fail(err)
	}
	set, err := newSet(fd)
	if err != nil {
		syscall.Close(fd)
		return fail(err)
	}
	c := &quietConn{fd: fd, set: set, remote: remote, buf: make([]byte, quietBuffer)}
	if c.wait, err = set.SyscallConn(); err != nil {
		c.Close()
		return fail(err)
	}
	return c, nil
}

// quietBuffer is how much one read takes from the socket.
const quietBuffer = 256 << 10

// newSet makes an epoll set that holds a socket, not armed, and is in Go's poller itself.
func newSet(fd int) (*os.File, error) {
	set, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create", err)
	}
	if err := syscall.SetNonblock(set, true); err != nil {
		syscall.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	ev := syscall.EpollEvent{Events: syscall.EPOLLONESHOT, Fd: int32(fd)}
	if err := syscall.EpollCtl(set, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		syscall.Close(set)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	f := os.NewFile(uintptr(set), "epoll")
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("put an epoll set into the poller: %w", err)
	}
	return f, nil
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

// connect connects a blocking socket and makes it one that does not block.
func connect(ctx context.Context, fd int, to syscall.Sockaddr, family int) error {
	limit := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(d), 20*time.Millisecond))
	}
	tv := syscall.NsecToTimeval(int64(limit))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv); err != nil { // bounds the connect, too
		return os.NewSyscallError("setsockopt", err)
	}
	if family != syscall.AF_UNIX {
		for _, o := range [][3]int{
			{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1}, {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 30}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 10}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
		} {
			if err := syscall.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
	}
	for {
		err := syscall.Connect(fd, to)
		if err == nil || errors.Is(err, syscall.EISCONN) {
			return os.NewSyscallError("fcntl", syscall.SetNonblock(fd, true))
		}
		if errors.Is(err, syscall.EINTR) && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, syscall.EINPROGRESS) || errors.Is(err, syscall.EAGAIN) {
			return os.ErrDeadlineExceeded
		}
		return os.NewSyscallError("connect", err)
	}
}

type quietConn struct {
	fd     int
	set    *os.File
	wait   syscall.RawConn // of set
	remote net.Addr
	buf    []byte
	ready  []byte      // of buf: read, and not taken
	more   atomic.Bool // the socket held more than was taken at the last look

	read, write atomic.Int64 // deadlines, Unix nanoseconds; 0 for none
	mu          sync.RWMutex // held for reading while fd is in use
	closed      atomic.Bool
}

// Drained reports whether everything that had come was taken: then a pause lets more gather, and
// holds nothing up that is there.
func (c *quietConn) Drained() bool { return len(c.ready) == 0 && !c.more.Load() }

// Buffered is how many bytes were taken from the socket and not read.
func (c *quietConn) Buffered() int { return len(c.ready) }

// Read takes what is there, or waits. The buffer stands below TLS, whose records are small.
func (c *quietConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.over(&c.read); err != nil {
		return 0, err
	}
	if len(c.ready) == 0 {
		if len(p) >= len(c.buf)/2 {
			return c.take(p)
		}
		n, err := c.take(c.buf)
		if err != nil {
			return 0, err
		}
		c.ready = c.buf[:n]
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// take reads from the socket.
func (c *quietConn) take(p []byte) (int, error) {
	for {
		n, err := syscall.Read(c.fd, p)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			c.more.Store(n == len(p))
			return n, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EAGAIN):
			return 0, os.NewSyscallError("read", err)
		default:
			c.more.Store(false)
			if err := c.arrive(); err != nil {
				return 0, err
			}
		}
	}
}

// arrive waits until the socket may be read, or the deadline passes.
func (c *quietConn) arrive() error {
	var failed error
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(c.fd)}
	var got [1]syscall.EpollEvent
	armed := false
	err := c.wait.Read(func(set uintptr) bool {
		if !armed {
			armed = true
			if failed = syscall.EpollCtl(int(set), syscall.EPOLL_CTL_MOD, c.fd, &ev); failed != nil {
				return true
			}
		}
		n, err := syscall.EpollWait(int(set), got[:], 0)
		return n > 0 || err != nil && !errors.Is(err, syscall.EINTR)
	})
	if c.closed.Load() {
		return net.ErrClosed
	}
	if failed != nil {
		return os.NewSyscallError("epoll_ctl", failed)
	}
	return err
}

// Write writes all of p. What is written here is short; a full socket is asked again.
func (c *quietConn) Write(p []byte) (int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	done := 0
	for done < len(p) {
		if err := c.over(&c.write); err != nil {
			return done, err
		}
		n, err := syscall.Write(c.fd, p[done:])
		done += max(n, 0)
		switch {
		case err == nil || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			time.Sleep(time.Millisecond)
		default:
			return done, os.NewSyscallError("write", err)
		}
	}
	return done, nil
}

// over reports why nothing may be read or written any more.
func (c *quietConn) over(deadline *atomic.Int64) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if d := deadline.Load(); d != 0 && time.Now().UnixNano() >= d {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *quietConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	err := c.set.Close() // wakes a read that waits
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, os.NewSyscallError("close", syscall.Close(c.fd)))
}

func (c *quietConn) LocalAddr() net.Addr  { return c.remote }
func (c *quietConn) RemoteAddr() net.Addr { return c.remote }

func (c *quietConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *quietConn) SetReadDeadline(t time.Time) error {
	c.read.Store(unixNano(t))
	return c.set.SetReadDeadline(t)
}

func (c *quietConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(unixNano(t))
	return nil
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixNano(), 1)
}
