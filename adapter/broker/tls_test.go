package broker_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
)

// Certificates on both sides, and NKeys instead of passwords.
func TestTLSAndNKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tls := certificate(t, dir)
	seedFile := filepath.Join(dir, "us.nk")
	if err := os.WriteFile(seedFile, []byte(nkeySeed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eu := brokertest.Start(t, broker.Config{Region: "eu", Peers: []string{"us", "ap"}, Listen: "127.0.0.1:0", TLS: tls, Identities: map[string]broker.Identity{"us": {NKey: nkeyPublic}}})
	dial := []string{"tls://" + eu.LinkAddr()}
	brokertest.Start(t, broker.Config{Region: "ap", Peers: []string{"eu"}, Dial: dial, TLS: tls})
	brokertest.Start(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: dial, TLS: tls, CredentialsFile: seedFile})
	brokertest.Until(t, "link", func() bool { return eu.PeerReachable("us") })
	if eu.PeerReachable("ap") {
		t.Error("linked without a key")
	}
}

// certificate makes one self-signed certificate for 127.0.0.1 that is its own authority.
func certificate(t *testing.T, dir string) broker.TLS {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	files := broker.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	files.CAFile = files.CertFile
	for path, block := range map[string]*pem.Block{
		files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
