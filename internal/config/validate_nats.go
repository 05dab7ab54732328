package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

func (c *Config) validateNATS(p *problems) {
	n := &c.NATS
	switch {
	case n.URL != "":
		for one := range strings.SplitSeq(n.URL, ",") {
			if !serverURL(strings.TrimSpace(one), "nats", "tls", "ws", "wss") {
				p.add("nats.url", "write nats://host:4222 or tls://host:4222, several separated by commas",
					"is no address of a NATS server")
			}
		}
		if n.Listen != "" || len(n.Dial) > 0 {
			p.add("nats.url", "keep url for an external server, or listen and dial for the embedded one",
				"is given together with nats.listen or nats.dial")
		}
	case c.Mode != ModeStream: // needs none
	case n.Listen == "" && len(n.Dial) == 0 && len(c.Peers) > 0:
		p.add("nats", "set nats.listen on one region and nats.dial on the other, or nats.url on both",
			"no way to the peers: url, listen and dial are all empty")
	}
	if n.Listen != "" {
		c.validateListener(p)
	}
	for i, d := range n.Dial {
		if !serverURL(d, "nats-leaf", "nats", "tls") {
			p.add(fmt.Sprintf("nats.dial[%d]", i), "write nats-leaf://host:7422 or tls://host:7422", "is no address of a peer")
		}
	}
	if n.Embedded() && !filepath.IsAbs(n.StoreDir) {
		p.add("nats.store_dir", "write the path from the root", "%q is not absolute", n.StoreDir)
	}
	p.size("nats.max_bytes", n.MaxBytes, max(1<<20, 4*c.Publish.MaxFrame), 1<<50)
	if n.Replicas < 1 || n.Replicas > 5 || n.Replicas%2 == 0 {
		p.add("nats.replicas", "use 1, 3 or 5", "%d is out of range", n.Replicas)
	} else if n.Replicas > 1 && n.Embedded() {
		p.add("nats.replicas", "set it to 1, or set nats.url to a cluster", "%d copies need an external cluster", n.Replicas)
	}
	if n.User != "" && n.CredentialsFile != "" {
		p.add("nats.user", "keep one of them", "is given together with nats.credentials_file")
	}
	if n.User == "" && !n.Password.IsZero() {
		p.add("nats.user", "name the user", "is missing, and a password is given")
	}
	if n.User != "" && n.Password.IsZero() && n.TLS.CAFile == "" && n.TLS.CertFile == "" {
		p.add("nats.user", "set nats.password_file or PGWALTZ_NATS_PASSWORD, or require certificates with nats.tls.ca_file", "has no password")
	}
	c.validateIdentities(p)
	c.validateTrust(p)
	p.file("nats.credentials_file", n.CredentialsFile)
	p.file("nats.tls.cert_file", n.TLS.CertFile)
	p.file("nats.tls.key_file", n.TLS.KeyFile)
	p.file("nats.tls.ca_file", n.TLS.CAFile)
	if (n.TLS.CertFile == "") != (n.TLS.KeyFile == "") {
		p.add("nats.tls", "give both", "cert_file and key_file belong together")
	}
}

// validateListener keeps an open door off the network: beyond loopback it takes TLS and
// authentication, unless somebody says that they are not needed.
func (c *Config) validateListener(p *problems) {
	n := &c.NATS
	if !p.address("nats.listen", n.Listen) || n.Insecure {
		return
	}
	host, _, _ := net.SplitHostPort(n.Listen)
	if loopback(host) {
		return
	}
	if n.TLS.CertFile == "" {
		p.add("nats.listen", "set nats.tls.cert_file and key_file, listen on 127.0.0.1, or set nats.insecure: true on a private network",
			"%s can be reached from outside, and there is no TLS", n.Listen)
	} else if n.TLS.CAFile == "" && n.Password.IsZero() && !c.allIdentified() {
		p.add("nats.listen", "set nats.tls.ca_file to ask for client certificates, nats.user with a password, or peers[].nkey or token_file for every peer",
			"%s can be reached from outside, and anybody may connect", n.Listen)
	}
}

func (c *Config) allIdentified() bool {
	return !slices.ContainsFunc(c.Peers, func(x Peer) bool { return !x.Identified() })
}

// validateIdentities looks at what peers prove on a link.
func (c *Config) validateIdentities(p *problems) {
	n := &c.NATS
	for i, peer := range c.Peers {
		key := fmt.Sprintf("peers[%d].", i)
		p.file(key+"token_file", peer.TokenFile)
		if peer.NKey != "" && !nkeys.IsValidPublicUserKey(peer.NKey) {
			p.add(key+"nkey", "give the public key, which begins with U; nats.credentials_file of the peer holds the seed", "is no public NKey of a user")
		}
		if peer.Identified() && n.Listen == "" {
			p.add(strings.TrimSuffix(key, "."), "give it on the side that listens, or remove it", "an identity on the link is given, and this region does not listen")
		}
		if peer.Certificate != "" && n.TLS.CAFile == "" {
			p.add(key+"certificate", "set nats.tls.ca_file, so that certificates are asked for", "is given, and no certificate is asked for")
		}
	}
	if n.Listen != "" && n.User != "" && n.TLS.CAFile == "" && len(c.Peers) > 1 && !c.allIdentified() {
		p.add("peers", "give each one an identity of its own: nkey, certificate or token_file", "%d peers share one password, which does not tell them apart", len(c.Peers))
	}
}

// validateTrust asks for proof of who wrote a frame wherever it passes a network: both sides
// of the link show certificates, or frames are signed.
func (c *Config) validateTrust(p *problems) {
	n := &c.NATS
	if n.Insecure || n.TLS.CAFile != "" && n.TLS.CertFile != "" {
		return
	}
	key, where := "", ""
	for _, d := range append(strings.Split(n.URL, ","), n.Dial...) {
		if u, err := url.Parse(strings.TrimSpace(d)); err == nil && u.Hostname() != "" && !loopback(u.Hostname()) {
			if key, where = "nats.dial", u.Host; n.URL != "" {
				key = "nats.url"
			}
			break
		}
	}
	if host, _, err := net.SplitHostPort(n.Listen); err == nil && !loopback(host) {
		key, where = "nats.listen", n.Listen
	}
	signed := c.Signing.KeyFile != "" && !slices.ContainsFunc(c.Peers, func(x Peer) bool { return x.PublicKey == "" })
	if key == "" || signed {
		return
	}
	p.add(key, "sign frames (signing.key_file, and public_key of every peer), or use certificates on both sides (nats.tls.cert_file, key_file and ca_file), or set nats.insecure: true on a private network",
		"%s is beyond this machine, and nothing proves who wrote a frame", where)
}

func loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

func (c *Config) validatePublish(p *problems) {
	b := &c.Publish
	p.size("publish.max_frame", b.MaxFrame, 4<<10, 8<<20)
	p.size("publish.frame_bytes", b.FrameBytes, 1<<10, b.MaxFrame)
	p.size("publish.wal_hold_max", b.WALHoldMax, 0, 1<<50)
	p.size("publish.hold_margin", b.HoldMargin, 0, b.WALHoldMax)
	p.between("publish.linger", b.Linger, 0, time.Second)
	p.between("publish.heartbeat", b.Heartbeat, 100*time.Millisecond, 10*time.Minute)
}

// address checks host:port.
func (p *problems) address(key, s string) bool {
	_, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n > 65535 {
		p.add(key, "write host:port, for example 127.0.0.1:7422", "%q is no address to listen on", s)
		return false
	}
	return true
}

// file checks that a named file can be read; "" names none.
func (p *problems) file(key, path string) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		p.add(key, "make the file readable for this user", "%s cannot be read: %s", path, reason(err))
		return
	}
	f.Close()
}

func serverURL(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return false
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme {
			return true
		}
	}
	return false
}
