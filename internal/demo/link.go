package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// link is the line between the regions: a TCP proxy on the loopback interface that can be
// cut. While it is cut, running connections are torn down and new ones die at once.
type link struct {
	target   string
	listener net.Listener
	bytes    atomic.Int64 // carried, both ways

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup // serve and every pump
}

// openLink listens at once; serve carries.
func openLink(target string) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open link: %w", err)
	}
	return &link{target: target, listener: l, conns: map[net.Conn]struct{}{}}, nil
}

func (l *link) addr() string { return l.listener.Addr().String() }

// serve accepts until ctx ends, then closes everything and returns when all is closed.
func (l *link) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	for {
		in, err := l.listener.Accept()
		if err != nil {
			l.dropAll()
			l.wg.Wait()
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept on link: %w", err)
		}
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.carry(ctx, in)
		}()
	}
}

func (l *link) carry(ctx context.Context, in net.Conn) {
	defer in.Close()
	if !l.keep(in) {
		return
	}
	defer l.forget(in)
	var d net.Dialer
	out, err := d.DialContext(ctx, "tcp", l.target)
	if err != nil {
		return // the other side is not up: the dialler tries again
	}
	defer out.Close()
	if !l.keep(out) {
		return
	}
	defer l.forget(out)
	done := make(chan struct{}) // closed when the backward pump has ended
	go func() {
		defer close(done)
		l.pump(in, out)
	}()
	l.pump(out, in)
	<-done
}

// pump copies one way and then closes both ends, which ends the other way.
func (l *link) pump(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			l.bytes.Add(int64(n))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil { // the end, or the cut
			break
		}
	}
	dst.Close()
	src.Close()
}

func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut || l.conns == nil {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// cut tears the line; heal mends it.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	for c := range l.conns {
		c.Close()
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = false
}

func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.isCut
}

func (l *link) dropAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
	l.conns = nil // keep refuses from now on
}
