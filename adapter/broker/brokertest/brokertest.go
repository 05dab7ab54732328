// Package brokertest gives tests real brokers with embedded servers, and a link between them
// that can be cut.
package brokertest

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
)

// Cluster is the cluster name of all brokers made here.
const Cluster = "test"

// Start starts a broker and closes it with the test. Cluster, StoreDir and MaxBytes have defaults.
func Start(t testing.TB, cfg broker.Config) *broker.Broker {
	t.Helper()
	cfg.Cluster = Cluster
	if cfg.StoreDir == "" && cfg.URL == "" {
		cfg.StoreDir = t.TempDir()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	Until(t, "connection of "+cfg.Region, func() bool { return b.Conn().IsConnected() })
	return b
}

// Pair is two linked regions; us dials eu through the proxy.
type Pair struct {
	EU, US *broker.Broker
	Link   *Proxy
}

// StartPair starts the regions eu and us and waits until each answers the other.
func StartPair(t testing.TB) *Pair {
	t.Helper()
	p := &Pair{EU: Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0"})}
	p.Link = NewProxy(t, p.EU.LinkAddr())
	p.US = Start(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: []string{"nats-leaf://" + p.Link.Addr()}})
	p.WaitLinked(t)
	return p
}

// WaitLinked waits until each region reaches the other.
func (p *Pair) WaitLinked(t testing.TB) {
	t.Helper()
	Until(t, "link", func() bool { return p.EU.PeerReachable("us") && p.US.PeerReachable("eu") })
}

// External starts an embedded server with a client port, and a broker of region that reaches
// it as an external one, through a proxy. dir is the server's store.
func External(t testing.TB, region string) (b, host *broker.Broker, link *Proxy, dir string) {
	t.Helper()
	dir = t.TempDir()
	host = Start(t, broker.Config{Region: "host", StoreDir: dir, ClientListen: "127.0.0.1:0"})
	link = NewProxy(t, host.ClientAddr())
	b = Start(t, broker.Config{
		Region: region, URL: "nats://" + link.Addr(), User: "operator", PasswordFile: filepath.Join(dir, "operator.password"),
	})
	return b, host, link, dir
}

// Until waits for a condition, and ends the test when it does not come true in 20 s.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Proxy forwards TCP connections to one address.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	mute  bool
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// NewProxy starts a proxy that ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where to connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut closes every connection and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Heal lets connections through again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.mute = false, false
}

// Mute swallows what the target sends, until the next Flap or Heal.
func (p *Proxy) Mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
}

func (p *Proxy) muted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mute
}

// Flap closes every connection once.
func (p *Proxy) Flap() {
	p.Cut()
	p.Heal()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(c) {
			continue
		}
		p.wg.Go(func() { p.forward(c) })
	}
}

// keep remembers an open connection, or closes it while the link is cut.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) forward(in net.Conn) {
	defer p.drop(in)
	out, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(out) {
		return
	}
	defer p.drop(out)
	p.wg.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := out.Read(buf)
		if n > 0 && !p.muted() {
			if _, err := in.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
