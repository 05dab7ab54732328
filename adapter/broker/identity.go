package broker

import (
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Identity is how a peer that links to our listener proves which region it is. Every part that
// is given has to fit.
type Identity struct {
	// Certificate is a name in the peer's certificate: its common name, or one of its subject
	// alternative names.
	Certificate string
	// NKey is the peer's public NKey.
	NKey string
	// TokenFile holds a password that only this peer has.
	TokenFile string
}

func (i Identity) empty() bool { return i == Identity{} }

// Authenticated reports whether whoever links to the listener has to prove something.
func (c *Config) Authenticated() bool {
	if c.TLS.CAFile != "" || c.User != "" && c.hasPassword() {
		return true
	}
	for _, p := range c.Peers {
		if c.Identities[p].empty() {
			return false
		}
	}
	return len(c.Peers) > 0
}

// doorman lets connections into the embedded server. Its Check may be called from any goroutine.
type doorman struct {
	cfg      *Config
	log      *slog.Logger
	local    string // password of localUser
	operator string // password of operatorUser; "" for none

	mu      sync.Mutex
	expires map[string]time.Time // peer -> when the certificate that it showed ends
}

// Check implements server.Authentication.
func (d *doorman) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	switch c.Kind() {
	case server.CLIENT:
		if o.Username == localUser && same(o.Password, d.local) || d.operator != "" && o.Username == operatorUser && same(o.Password, d.operator) {
			c.RegisterUser(&server.User{Username: o.Username})
			return true
		}
		return false
	case server.LEAF:
		region, err := d.peer(c)
		if err != nil {
			d.log.Warn("a link is refused", "from", addr(c), "reason", err.Error())
			return false
		}
		rights := d.rights(region)
		c.RegisterUser(&server.User{Username: region, Permissions: rights.permissions(d.cfg.Cluster)})
		return true
	}
	return false
}

func addr(c server.ClientAuthentication) string {
	if a := c.RemoteAddress(); a != nil {
		return a.String()
	}
	return "unknown"
}

// rights of a region that has linked.
func (d *doorman) rights(region string) Rights {
	others := append([]string{d.cfg.Region}, d.cfg.Peers...)
	return LinkRights(d.cfg.Cluster, region, slices.DeleteFunc(others, func(p string) bool { return p == region }))
}

// peer finds out which region a connection proves to be. Errors: why it is none.
func (d *doorman) peer(c server.ClientAuthentication) (string, error) {
	cert := certificateOf(c)
	if d.cfg.User != "" && !d.anyToken() {
		if err := d.password(c.GetOpts(), cert); err != nil {
			return "", err
		}
	}
	var why []error
	for _, p := range d.cfg.Peers {
		err := d.proves(c, cert, p)
		if err == nil {
			d.seen(p, cert)
			return p, nil
		}
		why = append(why, fmt.Errorf("not %s: %w", p, err))
	}
	if len(why) == 0 {
		return "", errors.New("this region has no peers")
	}
	return "", errors.Join(why...)
}

func (d *doorman) anyToken() bool {
	for _, i := range d.cfg.Identities {
		if i.TokenFile != "" {
			return true
		}
	}
	return false
}

// password checks the password that all peers share.
func (d *doorman) password(o *server.ClientOpts, cert *x509.Certificate) error {
	want, err := d.cfg.password()
	switch {
	case err != nil:
		return err
	case want == "" && cert == nil:
		return errors.New("the user has no password here, and no certificate was shown")
	case o.Username != d.cfg.User || !same(o.Password, want):
		return errors.New("user or password is wrong")
	}
	return nil
}

// proves holds a connection against one peer's identity.
func (d *doorman) proves(c server.ClientAuthentication, cert *x509.Certificate, peer string) error {
	id, o := d.cfg.Identities[peer], c.GetOpts()
	if id.empty() {
		return d.byDefault(o, cert, peer)
	}
	if id.Certificate != "" && !names(cert, id.Certificate) {
		return fmt.Errorf("its certificate does not have the name %q", id.Certificate)
	}
	if id.NKey != "" {
		if err := signed(c, id.NKey); err != nil {
			return err
		}
	}
	if id.TokenFile != "" {
		token, err := secret(id.TokenFile)
		if err != nil {
			return err
		}
		if token == "" || !same(o.Password, token) {
			return errors.New("its token is wrong")
		}
	}
	return nil
}

// byDefault is for a peer without an identity of its own: where certificates are required the
// certificate has the region's name; else a password that only one peer can have; else, on
// loopback or where the network is trusted, the name that it gives itself.
func (d *doorman) byDefault(o *server.ClientOpts, cert *x509.Certificate, peer string) error {
	switch {
	case d.cfg.User != "" && d.cfg.hasPassword() && len(d.cfg.Peers) == 1:
		return nil // checked already
	case d.cfg.TLS.CAFile != "":
		if !names(cert, peer) {
			return fmt.Errorf("its certificate does not have the name %q", peer)
		}
		return nil
	case d.cfg.User != "":
		return errors.New("several peers share one password, which proves nothing: give each an identity (peers[].nkey, certificate, token_file)")
	case o.Username != peer && len(d.cfg.Peers) > 1:
		return fmt.Errorf("it says it is %q", o.Username)
	}
	return nil
}

// seen remembers when a peer's certificate ends.
func (d *doorman) seen(peer string, cert *x509.Certificate) {
	if cert == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expires == nil {
		d.expires = map[string]time.Time{}
	}
	d.expires[peer] = cert.NotAfter
}

func certificateOf(c server.ClientAuthentication) *x509.Certificate {
	s := c.GetTLSConnectionState()
	if s == nil || len(s.PeerCertificates) == 0 {
		return nil
	}
	return s.PeerCertificates[0]
}

// names reports whether a certificate has a name. The handshake has verified it.
func names(cert *x509.Certificate, name string) bool {
	if cert == nil {
		return false
	}
	all := append([]string{cert.Subject.CommonName, cert.Subject.String()}, cert.DNSNames...)
	all = append(all, cert.EmailAddresses...)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return slices.ContainsFunc(all, func(n string) bool { return n != "" && strings.EqualFold(n, name) })
}

// signed checks that the connection has signed the server's nonce with the key.
func signed(c server.ClientAuthentication, public string) error {
	o := c.GetOpts()
	if o.Nkey != public {
		return errors.New("it shows another NKey, or none")
	}
	sig, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil {
		if sig, err = base64.StdEncoding.DecodeString(o.Sig); err != nil {
			return errors.New("its signature cannot be read")
		}
	}
	key, err := nkeys.FromPublicKey(public)
	if err != nil {
		return fmt.Errorf("read NKey: %w", err)
	}
	if len(c.GetNonce()) == 0 || key.Verify(c.GetNonce(), sig) != nil {
		return errors.New("its signature is wrong")
	}
	return nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
