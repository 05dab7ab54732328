package settings

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// links: what a peer has to prove to the region that listens. The command check of b logs in at a.
func links(s *scene) {
	s.open(harness.PairOptions{}, "create table t(id int primary key, version bigint default 0, updated_at timestamptz default now())")
	a, b := s.pair.A, s.pair.B
	s.must(s.pair.Setup(s.Context()))
	const in, out = "the link is let in", "the login is refused"
	again := func() {
		if a.Sidecar.Running() {
			_, err := a.Sidecar.Stop(s.Context(), 30*time.Second)
			s.must(err)
		}
		s.run(a)
		s.within("a to run", func() (bool, string) {
			st, err := a.Sidecar.Status(s.Context())
			return err == nil && st.Outbound != nil && st.Outbound.SlotActive, fmt.Sprint(err)
		})
	}
	reset := func() {
		for _, r := range s.pair.Regions() {
			for _, k := range []string{"nats.user", "nats.password_file", "nats.password", "nats.credentials_file", "nats.tls.cert_file", "nats.tls.key_file", "nats.tls.ca_file"} {
				s.set(r.Sidecar, k, nil)
			}
		}
		a.Sidecar.Set("peers", []any{map[string]any{"region": "b"}})
	}
	seen := func(keys ...string) {
		s.Cleanup(func() {
			if !s.Failed() {
				s.proofs.add(keys...)
			}
		})
	}

	// A password that is shared, from a file and from the environment.
	s.set(a.Sidecar, "nats.user", "shared")
	s.set(a.Sidecar, "nats.password_file", s.write("p", "right"))
	again()
	s.cli(b, 4, "check", out)
	s.set(b.Sidecar, "nats.user", "shared")
	s.set(b.Sidecar, "nats.password_file", s.write("p", "right"))
	s.cli(b, 0, "check", in)
	s.set(b.Sidecar, "nats.password_file", s.write("p", "wrong"))
	s.cli(b, 4, "check", out)
	s.set(b.Sidecar, "nats.password_file", nil)
	if s.from == env {
		s.set(b.Sidecar, "nats.password", "right")
		s.cli(b, 0, "check", in)
		s.set(a.Sidecar, "nats.password_file", nil)
		s.set(a.Sidecar, "nats.password", "from the environment")
		again()
		s.cli(b, 4, "check", out)
		s.set(b.Sidecar, "nats.password", "")
		seen("nats.password")
	}
	seen("nats.user", "nats.password_file")

	// Certificates.
	reset()
	ca := newAuthority(s)
	tls := func(r *harness.Region, name string) {
		cert, key := ca.issue(s, name)
		s.set(r.Sidecar, "nats.tls.cert_file", cert)
		s.set(r.Sidecar, "nats.tls.key_file", key)
		s.set(r.Sidecar, "nats.tls.ca_file", ca.path)
	}
	tls(a, "a")
	tls(b, "b")
	again()
	s.cli(b, 0, "check", in, "with TLS")
	s.set(b.Sidecar, "nats.tls.ca_file", newAuthority(s).path)
	s.cli(b, 4, "check", "signed by an authority")
	s.set(b.Sidecar, "nats.tls.ca_file", ca.path)
	s.set(b.Sidecar, "nats.tls.cert_file", nil)
	s.set(b.Sidecar, "nats.tls.key_file", nil)
	s.cli(b, 4, "check", "requires a certificate of us")
	seen("nats.tls.ca_file", "nats.tls.cert_file", "nats.tls.key_file")

	if s.from == file { // what belongs to one peer can be given in the file only
		a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "certificate": "replicator.b"}})
		tls(b, "b")
		again()
		s.cli(b, 4, "check", out)
		tls(b, "replicator.b")
		s.cli(b, 0, "check", in)

		reset()
		a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "token_file": s.write("token", "right")}})
		again()
		s.set(b.Sidecar, "nats.user", "b")
		s.set(b.Sidecar, "nats.password_file", s.write("p", "wrong"))
		s.cli(b, 4, "check", out)
		s.set(b.Sidecar, "nats.password_file", s.write("p", "right"))
		s.cli(b, 0, "check", in)
		seen("peers[].certificate", "peers[].token_file", "peers[].nkey")
	}
	reset()
	key, stranger := newKey(s), newKey(s)
	if s.from == file {
		a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "nkey": key.public}})
		again()
		s.set(b.Sidecar, "nats.credentials_file", s.write("seed", stranger.seed))
		s.cli(b, 4, "check", out)
		s.set(b.Sidecar, "nats.credentials_file", s.write("seed", key.seed))
		s.cli(b, 0, "check", in)
		seen("nats.credentials_file")
	}
}

type key struct{ public, seed string }

func newKey(s *scene) key {
	pair, err := nkeys.CreateUser()
	s.must(err)
	public, err := pair.PublicKey()
	s.must(err)
	seed, err := pair.Seed()
	s.must(err)
	return key{public, string(seed)}
}

type authority struct {
	path string
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(s *scene) *authority {
	public, private, err := ed25519.GenerateKey(nil)
	s.must(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, public, private)
	s.must(err)
	a := &authority{key: private}
	a.cert, err = x509.ParseCertificate(der)
	s.must(err)
	a.path = s.write("ca.pem", block("CERTIFICATE", der))
	return a
}

func (a *authority) issue(s *scene, name string) (cert, key string) {
	public, private, err := ed25519.GenerateKey(nil)
	s.must(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, tmpl, a.cert, public, a.key)
	s.must(err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	s.must(err)
	return s.write(filepath.Base(name)+".pem", block("CERTIFICATE", der)), s.write(filepath.Base(name)+".key", block("PRIVATE KEY", secret))
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
