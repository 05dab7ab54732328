package broker_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
)

// notes is a log that can be read while it is written.
type notes struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notes) has(words string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Contains(n.text.Bytes(), []byte(words))
}

// Renewed certificates are taken into use by either side without a restart; files that do not fit
// together are not, and what ended is named.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	day := time.Now().Add(24 * time.Hour)
	var said, saidEU notes
	eu := brokertest.Start(t, broker.Config{
		Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", TLS: ca.issue(t, "eu", day),
		Log: slog.New(slog.NewTextHandler(&saidEU, nil)),
	})
	files := ca.issue(t, "us", time.Now().Add(-time.Minute))
	us := brokertest.Start(t, broker.Config{
		Region: "us", Peers: []string{"eu"}, Dial: []string{"tls://" + eu.LinkAddr()}, TLS: files,
		Log: slog.New(slog.NewTextHandler(&said, nil)),
	})
	brokertest.Until(t, "the word of an expired certificate", func() bool { return said.has("has expired") })
	brokertest.Until(t, "the listener's word of it", func() bool { return saidEU.has("certificate has expired") })
	brokertest.Until(t, "the word of a certificate that ends tomorrow", func() bool { return saidEU.has("a certificate expires soon") })
	if said.has("a certificate expires soon") {
		t.Error("what has expired is said to expire soon")
	}
	if eu.PeerReachable("us") {
		t.Error("linked with an expired certificate")
	}
	ca.issue(t, "us", day)
	linked := func() bool { return eu.PeerReachable("us") && us.PeerReachable("eu") }
	brokertest.Until(t, "the link with a renewed certificate", linked)
	brokertest.Until(t, "the end of the peer's certificate, at the listener", func() bool { return eu.Certificates()["us"].Equal(day.Truncate(time.Second)) })

	later := day.Add(24 * time.Hour).Truncate(time.Second)
	ca.issue(t, "eu", later)
	brokertest.Until(t, "the listener to show its renewed certificate", func() bool {
		got := shown(t, eu.LinkAddr(), files)
		return got != nil && got.NotAfter.Equal(later)
	})
	if end := eu.Certificates()["own"]; !end.Equal(later) {
		t.Errorf("the certificate is said to end %v, want %v", end, later)
	}
	brokertest.Until(t, "the link after that", linked)

	if err := os.WriteFile(files.CertFile, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	brokertest.Until(t, "the word of files that cannot be used", func() bool { return said.has("the former ones stay in use") })
	brokertest.Until(t, "the link with the former files", linked)
}

// A token that is changed at the listener ends the link of who has the former one only.
func TestRenewedToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var said notes
	eu := brokertest.Start(t, broker.Config{
		Region: "eu", Peers: []string{"us"}, Listen: "127.0.0.1:0", Identities: map[string]broker.Identity{"us": {TokenFile: write("token", "the former token")}},
	})
	us := brokertest.Start(t, broker.Config{
		Region: "us", Peers: []string{"eu"}, Dial: []string{"nats-leaf://" + eu.LinkAddr()}, User: "us", PasswordFile: write("mine", "the former token"),
		Log: slog.New(slog.NewTextHandler(&said, nil)),
	})
	linked := func() bool { return eu.PeerReachable("us") && us.PeerReachable("eu") }
	brokertest.Until(t, "the link", linked)
	write("token", "the next token")
	brokertest.Until(t, "the end of the link", func() bool { return !eu.PeerReachable("us") })
	brokertest.Until(t, "the word of it", func() bool { return said.has("refus") || said.has("Authori") })
	write("mine", "the next token")
	brokertest.Until(t, "the link with the next token", linked)
}

// A file that is gone holds up no renewal of another one; the token of a peer that is gone lets that
// peer in no more.
func TestAFileThatIsGone(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	day := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	dir := t.TempDir()
	token := func(name, region string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("the token of "+region+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var said notes
	eu := brokertest.Start(t, broker.Config{
		Region: "eu", Peers: []string{"ap", "us"}, Listen: "127.0.0.1:0", TLS: ca.issue(t, "eu", day), Log: slog.New(slog.NewTextHandler(&said, nil)),
		Identities: map[string]broker.Identity{"ap": {TokenFile: token("ap", "ap")}, "us": {TokenFile: token("us", "us")}},
	})
	files := ca.issue(t, "us", day)
	us := brokertest.Start(t, broker.Config{
		Region: "us", Peers: []string{"eu"}, Dial: []string{"tls://" + eu.LinkAddr()}, TLS: files, User: "us", PasswordFile: token("mine", "us"),
	})
	linked := func() bool { return eu.PeerReachable("us") && us.PeerReachable("eu") }
	brokertest.Until(t, "the link", linked)

	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	remove("ap")
	later := day.Add(24 * time.Hour)
	ca.issue(t, "eu", later)
	brokertest.Until(t, "the renewed certificate", func() bool {
		got := shown(t, eu.LinkAddr(), files)
		return got != nil && got.NotAfter.Equal(later)
	})
	brokertest.Until(t, "the word of the file that is gone", func() bool { return said.has("cannot be read") && said.has(filepath.Join(dir, "ap")) })
	brokertest.Until(t, "the link of the other one", linked)

	remove("mine") // what it was let in with stays in use
	ca.issue(t, "eu", day)
	remove("us")
	brokertest.Until(t, "the end of the link", func() bool { return !eu.PeerReachable("us") })
	token("us", "us")
	token("mine", "us")
	brokertest.Until(t, "the link when the token is back", linked)
}

// shown is the certificate that a listener shows; nil when there is none to see now.
func shown(t *testing.T, at string, files broker.TLS) *x509.Certificate {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadSlice('\n'); err != nil { // it greets in the clear
		return nil
	}
	secure := tls.Client(conn, clientTLS(t, files))
	if err := secure.HandshakeContext(t.Context()); err != nil {
		return nil
	}
	return secure.ConnectionState().PeerCertificates[0]
}
