// Package proxy is a TCP proxy on the loopback interface that breaks what passes through it:
// the link of the demo, and the links of the tests.
package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Direction is one way through a proxy: Up flows from the side that dials to the server,
// Down flows back.
type Direction int

// The two directions.
const (
	Up Direction = iota
	Down
)

// way is the state of one direction.
type way struct {
	hold  bool          // read nothing: bytes wait in the kernel, as behind a dead cable
	drop  bool          // read and throw away; the connection is closed when this ends
	rate  int           // bytes per second, 0 = unlimited
	delay time.Duration // added to every chunk
	lost  float64       // share of the segments that are lost and sent again
}

const (
	segmentBytes = 1448                   // what a packet of 1500 bytes carries
	resendAfter  = 200 * time.Millisecond // how long a sender waits at least before it sends a segment again
)

// resent is how long a chunk waits for the segments that were lost of it. One that is lost more
// than once is waited for twice as long each time, as TCP does it; all behind it wait as well.
func (w way) resent(bytes int) time.Duration {
	var all time.Duration
	for range (bytes + segmentBytes - 1) / segmentBytes {
		for wait := max(resendAfter, 2*w.delay); rand.Float64() < w.lost; wait *= 2 {
			all += wait
		}
	}
	return all
}

// Proxy is a TCP proxy that breaks what passes through it. It listens from New to Close;
// the address never changes. Safe for use from any goroutine.
type Proxy struct {
	target string
	l      net.Listener

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change of state
	ways    [2]way
	free    [2]time.Time // when the link has carried what was given to it, where its speed is bounded
	refuse  bool
	conns   map[*proxyConn]struct{}
	closed  bool
	ackEach int // drop the answers after each n-th publish
	ackFor  time.Duration
	ackSeen int
	carried int64
	wg      sync.WaitGroup
}

type proxyConn struct {
	client, server net.Conn
	spoiled        bool // bytes were thrown away: the stream is of no use any more
}

func (c *proxyConn) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// New listens on a free loopback port and forwards to target.
func New(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for proxy: %w", err)
	}
	p := &Proxy{target: target, l: l, changed: make(chan struct{}), conns: map[*proxyConn]struct{}{}}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

func (p *Proxy) update(fn func()) {
	p.mu.Lock()
	fn()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
}

// Cut closes every connection and refuses new ones.
func (p *Proxy) Cut() {
	p.update(func() { p.refuse = true })
	p.CloseConns()
}

// Hold lets nothing through in one direction, without closing anything.
func (p *Proxy) Hold(d Direction) { p.update(func() { p.ways[d].hold = true }) }

// Drop throws away everything in one direction; the connections that lost bytes are
// closed by Heal.
func (p *Proxy) Drop(d Direction) { p.update(func() { p.ways[d].drop = true }) }

// Throttle limits both directions to so many bytes per second, of all connections together; 0 lifts the limit.
func (p *Proxy) Throttle(bytesPerSecond int) {
	p.update(func() { p.ways[Up].rate, p.ways[Down].rate = bytesPerSecond, bytesPerSecond })
}

// Delay adds d to every chunk in both directions.
func (p *Proxy) Delay(d time.Duration) {
	p.update(func() { p.ways[Up].delay, p.ways[Down].delay = d, d })
}

// Lose makes both directions lose a share of their segments, which TCP sends again: everything behind
// one of them waits until it has come. 0 ends it.
func (p *Proxy) Lose(share float64) {
	p.update(func() { p.ways[Up].lost, p.ways[Down].lost = share, share })
}

// DropAnswers throws away what the server says for d after each n-th publish of the
// client (a NATS client that publishes with headers), then closes the connection: the
// messages are stored, their acknowledgements are lost. n = 0 ends it.
func (p *Proxy) DropAnswers(n int, d time.Duration) {
	p.update(func() { p.ackEach, p.ackFor, p.ackSeen = n, d, 0 })
}

// Up reports whether connections are let through.
func (p *Proxy) Up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.refuse && !p.closed
}

// Carried is how many bytes were passed on so far, both ways.
func (p *Proxy) Carried() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carried
}

// Heal lets everything through again and closes connections that lost bytes.
func (p *Proxy) Heal() {
	p.update(func() {
		p.ways = [2]way{}
		p.refuse, p.ackEach = false, 0
		for c := range p.conns {
			if c.spoiled {
				c.close()
			}
		}
	})
}

// CloseConns closes every connection that is open now; new ones are accepted.
func (p *Proxy) CloseConns() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.close()
	}
}

// Close stops listening and ends every connection.
func (p *Proxy) Close() {
	p.update(func() { p.closed = true })
	_ = p.l.Close()
	p.CloseConns()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		no := p.refuse || p.closed
		p.mu.Unlock()
		if no {
			reset(c)
			continue
		}
		p.wg.Add(1)
		go p.serve(c)
	}
}

// reset closes with RST, the way a port that nobody listens on answers.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.wg.Done()
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		reset(client)
		return
	}
	pc := &proxyConn{client: client, server: server}
	p.mu.Lock()
	if p.refuse || p.closed {
		p.mu.Unlock()
		pc.close()
		return
	}
	p.conns[pc] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); p.pump(pc, client, server, Up) }()
	go func() { defer both.Done(); p.pump(pc, server, client, Down) }()
	both.Wait()
	p.mu.Lock()
	delete(p.conns, pc)
	p.mu.Unlock()
}

// gate waits until a direction is open and answers what to do with the next chunk.
func (p *Proxy) gate(d Direction) (way, bool) {
	for {
		p.mu.Lock()
		w, ch, closed := p.ways[d], p.changed, p.closed || p.refuse
		p.mu.Unlock()
		if closed {
			return w, false
		}
		if !w.hold {
			return w, true
		}
		<-ch
	}
}

func (p *Proxy) pump(pc *proxyConn, from, to net.Conn, d Direction) {
	defer pc.close()
	buf := make([]byte, 32<<10)
	for {
		w, ok := p.gate(d)
		if !ok {
			return
		}
		part := buf
		if w.rate > 0 {
			part = buf[:max(1, min(len(buf), w.rate/10))]
		}
		n, err := from.Read(part)
		if n > 0 && !p.pass(pc, to, part[:n], d) {
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) pass(pc *proxyConn, to net.Conn, chunk []byte, d Direction) bool {
	w, ok := p.gate(d) // the state may have changed while Read was waiting
	if !ok {
		return false
	}
	if d == Up {
		p.countPublishes(pc, chunk)
	}
	if w.drop {
		p.mu.Lock()
		pc.spoiled = true
		p.mu.Unlock()
		return true
	}
	if w.delay > 0 {
		p.sleep(w.delay)
	}
	if w.lost > 0 {
		p.sleep(w.resent(len(chunk)))
	}
	if w.rate > 0 { // all connections share the link
		p.sleep(p.turn(d, time.Duration(len(chunk))*time.Second/time.Duration(w.rate)))
	}
	if _, err := to.Write(chunk); err != nil {
		return false
	}
	p.mu.Lock()
	p.carried += int64(len(chunk))
	p.mu.Unlock()
	return true
}

// turn takes the next piece of time of a direction, and says when it is over.
func (p *Proxy) turn(d Direction, long time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free[d].Before(now) {
		p.free[d] = now
	}
	p.free[d] = p.free[d].Add(long)
	return p.free[d].Sub(now)
}

// sleep waits for d, shorter when the proxy is closed meanwhile.
func (p *Proxy) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		p.mu.Lock()
		ch, closed := p.changed, p.closed
		p.mu.Unlock()
		if closed {
			return
		}
		select {
		case <-t.C:
			return
		case <-ch:
		}
	}
}

func (p *Proxy) countPublishes(pc *proxyConn, chunk []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ackEach == 0 || p.ways[Down].drop {
		return
	}
	p.ackSeen += bytes.Count(chunk, []byte("HPUB ")) + bytes.Count(chunk, []byte("HMSG "))
	if p.ackSeen < p.ackEach {
		return
	}
	p.ackSeen = 0
	p.ways[Down].drop = true
	time.AfterFunc(p.ackFor, func() {
		p.update(func() {
			p.ways[Down].drop = false
			if pc.spoiled {
				pc.close()
			}
		})
	})
}
