package broker_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/wire"
)

// looked tries cfg, and wants one probe of the grade about the key that holds each of the texts.
func looked(t *testing.T, cfg broker.Config, want ...string) []broker.Probe {
	t.Helper()
	cfg.Cluster = cluster
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 20
	}
	if cfg.StoreDir == "" && cfg.URL == "" {
		cfg.StoreDir = filepath.Join(t.TempDir(), "not", "there", "yet")
	}
	found := broker.Look(t.Context(), cfg, 900<<10, false)
	var lines []string
	for _, p := range found {
		lines = append(lines, fmt.Sprintf("%s %s: %s", map[broker.Grade]string{broker.Works: "ok", broker.Doubtful: "doubt", broker.Fails: "fail"}[p.Grade], p.About, p.What))
		if p.Grade == broker.Fails && p.Remedy == "" {
			t.Errorf("%s: no remedy", p.What)
		}
	}
	for _, w := range want {
		parts := strings.Split(w, "~")
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, parts[0]) && !slices.ContainsFunc(parts[1:], func(p string) bool { return !strings.Contains(l, p) })
		}) {
			t.Errorf("nothing like %q in\n%s", w, strings.Join(lines, "\n"))
		}
	}
	if _, err := os.Stat(cfg.StoreDir); cfg.StoreDir != "" && err == nil && strings.HasSuffix(cfg.StoreDir, "yet") {
		t.Error("the folder was made")
	}
	return found
}

// try is looked in a test of its own, beside others.
func try(t *testing.T, cfg broker.Config, want ...string) {
	t.Run(want[0], func(t *testing.T) {
		t.Parallel()
		looked(t, cfg, want...)
	})
}

func peersOf(peer string) []string { return []string{peer} }

// What stands between a region and the listener of another one is named: addresses, TLS, logins.
func TestLookAtLinks(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	later := time.Now().Add(60 * 24 * time.Hour)
	eu, us := ca.issue(t, "eu", later), ca.issue(t, "us", later)
	hub := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", TLS: eu})
	dial := func(files broker.TLS, address string) broker.Config {
		return broker.Config{Region: "us", Peers: []string{"eu"}, Dial: []string{address}, TLS: files}
	}
	at := "tls://" + hub.LinkAddr()
	try(t, dial(us, at), "ok nats.dial[0]~answers, with TLS", "ok nats.dial~let in", "ok peers.eu~answers within", "ok nats.tls~good until", "ok nats.store_dir~can be made")

	foreign := us
	foreign.CAFile = filepath.Join(other.dir, "ca.pem")
	try(t, dial(foreign, at), "fail nats.dial[0]~signed by an authority that is not in")
	try(t, dial(broker.TLS{CertFile: us.CertFile, KeyFile: us.KeyFile}, at), "fail nats.dial[0]~an authority that this machine does not know")
	try(t, dial(us, strings.Replace(at, "127.0.0.1", "localhost", 1)), "fail nats.dial[0]~not for the host name localhost~eu.example, 127.0.0.1")
	try(t, dial(broker.TLS{CAFile: us.CAFile}, at), "fail nats.dial[0]~requires a certificate of us")
	strange := other.issue(t, "us", later)
	strange.CAFile = us.CAFile
	try(t, dial(strange, at), "fail nats.dial[0]~refuses our certificate")
	try(t, dial(ca.issue(t, "us-old", time.Now().Add(-time.Hour)), at), "fail nats.tls~has expired on", "fail nats.dial[0]~our certificate has expired")
	try(t, dial(ca.issue(t, "ap", later), at), "ok nats.dial[0]~answers", "fail nats.dial~the login is refused")

	// The listener's own certificate has ended.
	old := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", TLS: ca.issue(t, "eu-old", time.Now().Add(-time.Minute))})
	try(t, dial(us, "tls://"+old.LinkAddr()), "fail nats.dial[0]~its certificate has expired on")
	soon := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", TLS: ca.issue(t, "eu-soon", time.Now().Add(48*time.Hour))})
	try(t, dial(us, "tls://"+soon.LinkAddr()), "doubt nats.dial[0]~of the other side expires on", "ok peers.eu~answers")

	// Logins.
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", Identities: map[string]broker.Identity{"us": {TokenFile: token}}})
	for password, want := range map[string]string{"right": "ok peers.eu~answers", "wrong": "fail nats.dial~the login is refused"} {
		try(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: []string{"nats-leaf://" + asked.LinkAddr()}, User: "us", Password: password}, want)
	}
	try(t, dial(us, "tls://"+asked.LinkAddr()), "fail nats.dial[0]~offers no TLS")

	// Peers that are not there, or not who they should be.
	try(t, broker.Config{Region: "us", Peers: []string{"ap"}, Dial: []string{at}, TLS: us}, "doubt peers.ap~no sidecar of ap answers")
}

// unheard is an address that refuses connections until the test ends: nobody listens there, and nobody else can.
func unheard(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

// What stands between a region and any address is named.
func TestLookAtAddresses(t *testing.T) {
	t.Parallel()
	listen := func(serve func(net.Conn)) string {
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
				go serve(c)
			}
		}()
		return l.Addr().String()
	}
	closed := listen(nil)
	srv := brokertest.Foreign(t, &server.Options{})
	for address, want := range map[string]string{
		unheard(t): "doubt nats.dial[0]~refused: nothing listens there",
		listen(func(c net.Conn) { fmt.Fprint(c, "220 mail.example ESMTP\r\n") }): "fail nats.dial[0]~it is no NATS server",
		listen(func(c net.Conn) { c.Close() }):                                   "doubt nats.dial[0]~ends the connection at once",
		listen(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }):               "fail nats.dial[0]~says nothing",
		"no-such-host.invalid:7422":                                              "~nats.dial[0]~no-such-host.invalid",
		strings.TrimPrefix(srv.ClientURL(), "nats://"):                           "fail nats.dial[0]~the port for clients",
	} {
		try(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: []string{"nats-leaf://" + address}}, want)
	}
	// What we listen on, and where we store.
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, Listen: closed}, "fail nats.listen~taken by another program")
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, Listen: "192.0.2.1:7422", AllowPlain: true}, "fail nats.listen~no address of this machine")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, StoreDir: file}, "fail nats.store_dir~is no folder")
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, StoreDir: filepath.Join(file, "below")}, "fail nats.store_dir~")
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, StoreDir: "/proc/pgwaltz"}, "fail nats.store_dir~cannot be written to")
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, MaxBytes: 1 << 49}, "doubt nats.store_dir~nats.max_bytes")
	dir := t.TempDir()
	running := brokertest.Start(t, broker.Config{Region: "us", Peers: []string{"eu"}, Listen: "127.0.0.1:0", StoreDir: dir})
	try(t, broker.Config{Region: "us", Peers: []string{"eu"}, Listen: running.LinkAddr(), StoreDir: dir}, "ok nats.store_dir~a sidecar of this region runs here", "ok nats.listen~belongs to the sidecar that runs")
	// A sidecar that was started with another STATE_DIRECTORY keeps its stream elsewhere, and has the address.
	elsewhere := broker.Look(t.Context(), broker.Config{Cluster: cluster, Region: "us", Peers: []string{"eu"}, Listen: running.LinkAddr(), StoreDir: t.TempDir(), MaxBytes: 1 << 20}, 900<<10, true)
	if len(elsewhere) != 2 || elsewhere[0].Grade != broker.Doubtful || !strings.Contains(elsewhere[0].Remedy, "STATE_DIRECTORY") || elsewhere[1].Grade != broker.Works {
		t.Errorf("with another folder than the sidecar that runs: %+v", elsewhere)
	}
}

// Of an external server, the login, JetStream and each missing right are named, and what is stored
// there stays as it is.
func TestLookAtServer(t *testing.T) {
	t.Parallel()
	user := func(region string, without ...string) *server.User {
		r := broker.ClientRights(cluster, "us", peersOf("eu"))
		gone := func(s string) bool {
			return slices.ContainsFunc(without, func(w string) bool { return strings.Contains(s, w) })
		}
		return &server.User{Username: region, Password: "right", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: slices.DeleteFunc(r.Publish, gone)}, Subscribe: &server.SubjectPermission{Allow: slices.DeleteFunc(r.Subscribe, gone)},
		}}
	}
	stream, frames := wire.StreamName(cluster, "us"), wire.Subject(cluster, "us")
	srv := brokertest.Foreign(t, &server.Options{JetStream: true, Users: []*server.User{
		user("us"), user("no-stream", "STREAM.CREATE."+stream), user("no-frames", frames), user("no-ack", ".ack."), user("no-hearing", ".ctl.us."), user("no-info", "STREAM.INFO."+stream),
		{Username: "eu", Password: "right"},
	}})
	as := func(name, password string) broker.Config {
		return broker.Config{Region: "us", Peers: peersOf("eu"), URL: srv.ClientURL(), User: name, Password: password}
	}
	looked(t, as("us", "right"), "ok nats.url~logged in~without TLS", "ok nats.url~stream "+stream+" is not there yet", "ok nats.user~may say and hear", "doubt peers.eu~no sidecar of eu answers")
	looked(t, as("us", "wrong"), "fail nats.url~the login is refused")
	us := brokertest.Start(t, as("us", "right"))
	brokertest.Start(t, broker.Config{Region: "eu", Peers: peersOf("us"), URL: srv.ClientURL(), User: "eu", Password: "right"})
	fill(t, us, "us", 5)
	pull(t, us, "us", 1)
	looked(t, as("us", "right"), "ok nats.url~holds 5 messages", "ok peers.eu~answers within", "ok nats.user~may say and hear")
	unharmed(t, us, 5, "eu", "us")
	t.Run("rights", func(t *testing.T) {
		try(t, as("no-stream", "right"), "fail nats.user~may not publish to $JS.API.STREAM.CREATE."+stream)
		try(t, as("no-frames", "right"), "fail nats.user~may not publish to "+frames)
		try(t, as("no-ack", "right"), "fail nats.user~may not publish to "+wire.AckSubject(cluster, "eu", "us"), "fail nats.user~may not subscribe to "+wire.AckSubject(cluster, "us", "*"))
		try(t, as("no-hearing", "right"), "fail nats.user~may not subscribe to "+wire.ControlSubject(cluster, "us", "*", "*"))
		try(t, as("no-info", "right"), "fail nats.user~may not publish to $JS.API.STREAM.INFO."+stream)
	})
	unharmed(t, us, 5, "eu", "us")
	if found := looked(t, as("us", "right")); slices.ContainsFunc(found, func(p broker.Probe) bool { return p.Grade == broker.Fails }) {
		t.Error("a probe fails")
	}

	plain := brokertest.Foreign(t, &server.Options{})
	try(t, broker.Config{Region: "us", Peers: peersOf("eu"), URL: plain.ClientURL()}, "fail nats.url~has no JetStream")
	try(t, broker.Config{Region: "us", Peers: peersOf("eu"), URL: "tls" + strings.TrimPrefix(plain.ClientURL(), "nats")}, "fail nats.url~offers no TLS")
	small := brokertest.Foreign(t, &server.Options{JetStream: true, MaxPayload: 64 << 10})
	try(t, broker.Config{Region: "us", Peers: peersOf("eu"), URL: small.ClientURL()}, "fail nats.url~takes messages of 65536 bytes")
	try(t, broker.Config{Region: "us", Peers: peersOf("eu"), URL: "nats://" + unheard(t) + "," + plain.ClientURL()}, "doubt nats.url~nothing listens there", "ok nats.url~logged in")
}
