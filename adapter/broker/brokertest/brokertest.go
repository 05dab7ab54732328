// Package brokertest gives tests real brokers with embedded servers, and a link between them
// that can be cut.
package brokertest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/proxy"
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
	Link   *proxy.Proxy
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
func External(t testing.TB, region string) (b, host *broker.Broker, link *proxy.Proxy, dir string) {
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

// NewProxy starts a proxy that ends with the test.
func NewProxy(t testing.TB, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
