package broker

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/pgwaltz/pgwaltz/wire"
)

// Config describes the broker of one region. Either URL is set (an external server or
// cluster that every region reaches) or StoreDir is (the server inside this process).
type Config struct {
	Cluster, Region string
	// Peers are the other regions, whose reachability is watched.
	Peers []string

	// URL of an external server; a comma-separated list names the servers of one cluster.
	URL string
	// CredentialsFile holds a .creds file or an NKey seed. External: who we are. Embedded:
	// who we are to the servers that we dial.
	CredentialsFile string
	// User and PasswordFile, or Password: external and dialling, who we are; listening, whom
	// we let in. The file is read whenever it is needed.
	User, PasswordFile, Password string
	// Identities say how each peer that links to our listener proves who it is. A peer
	// without one proves it by a certificate with the region's name, or as the only peer by the
	// password; on loopback it need not.
	Identities map[string]Identity
	// Sign signs what this region says to others beside its frames; nil leaves it unsigned.
	// What a peer with a key in PublicKeys says has to be signed by it.
	Sign       func([]byte) []byte
	PublicKeys map[string]ed25519.PublicKey
	TLS        TLS

	// Listen is the address of the link listener, host:port; empty for none. An address
	// that is not loopback needs TLS, or AllowPlain where the network itself is private.
	Listen     string
	AllowPlain bool
	// Dial lists the listeners of other regions, nats-leaf://host:port or tls://host:port.
	Dial []string
	// StoreDir belongs to this broker alone. It is created when missing.
	StoreDir string
	// MaxBytes is the size that the region's stream may reach on disk.
	MaxBytes int64
	// SyncAlways makes the embedded server wait for the disk before it acknowledges any message, from the beginning.
	SyncAlways bool
	// ClientListen opens a client port, for inspection with NATS tools. The user is
	// "operator", the password stands in StoreDir/operator.password.
	ClientListen string

	Log *slog.Logger
	// Position is asked for what peers are told of this region's WAL; nil tells nothing. It must
	// not block.
	Position func() *Position
	// Stuck is asked for what a peer is told of how its changes are applied here: gap, down, or ""
	// where they are. It must not block.
	Stuck func(origin string) string
	// Life names this region's database among all that had its name; "" tells nothing.
	Life string
	// OnState is called, from a goroutine of the broker, whenever the connection or the
	// reachability of a peer changes. It must not block.
	OnState func(State)
}

// TLS names PEM files. A listener with CAFile asks its peers for a certificate.
type TLS struct{ CertFile, KeyFile, CAFile string }

func (t TLS) set() bool { return t.CertFile != "" || t.CAFile != "" }

// State is the broker's view of its surroundings.
type State struct {
	Connected bool            // to the local or the external server
	Peers     map[string]bool // region -> answers our pings
	Err       error           // why it is not connected, where known
}

// ConfigError is a setting that cannot work.
type ConfigError struct{ Key, Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("configure broker: %s: %s", e.Key, e.Problem)
}

// Hint tells an operator what to do.
func (e *ConfigError) Hint() string { return e.Remedy }

func (c *Config) embedded() bool { return c.URL == "" }

// check finds everything that is wrong, not only the first thing.
func (c *Config) check() error {
	var errs []error
	bad := func(key, problem, remedy string) {
		errs = append(errs, &ConfigError{Key: key, Problem: problem, Remedy: remedy})
	}
	for _, n := range append([]string{c.Cluster, c.Region}, c.Peers...) {
		if err := wire.CheckName(n); err != nil {
			bad("cluster, region, peers", err.Error(), "use short names of a-z, 0-9 and hyphens")
		}
	}
	for _, p := range c.Peers {
		if p == c.Region {
			bad("peers", fmt.Sprintf("region %s is its own peer", p), "list only the other regions")
		}
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("nats.tls", "cert_file and key_file go together", "set both or neither")
	}
	if !c.embedded() {
		if c.Listen != "" || len(c.Dial) > 0 || c.ClientListen != "" {
			bad("nats", "url excludes listen and dial", "an external server makes its own links; remove listen and dial, or url")
		}
		return errors.Join(errs...)
	}
	if c.StoreDir == "" {
		bad("nats.store_dir", "it is empty", "name a folder on a disk that survives restarts; NATS would take the temporary one")
	}
	if c.MaxBytes <= 0 {
		bad("nats.max_bytes", "it must be above zero", "allow for the longest cut: bytes of changes per hour times hours")
	}
	for _, l := range []struct{ key, addr string }{{"nats.listen", c.Listen}, {"nats.client_listen", c.ClientListen}} {
		if l.addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(l.addr)
		if err != nil {
			bad(l.key, fmt.Sprintf("address %q is not host:port", l.addr), "write it like 127.0.0.1:7422")
			continue
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && c.TLS.CertFile == "" && !c.AllowPlain {
			bad(l.key, fmt.Sprintf("%s is open to the network without TLS", l.addr),
				"set nats.tls.cert_file and key_file, or listen on 127.0.0.1 behind a tunnel")
		}
	}
	if c.User != "" && !c.hasPassword() && c.TLS.CAFile == "" && c.TLS.CertFile == "" {
		bad("nats.user", "it has no password", "set nats.password_file or PGWALTZ_NATS_PASSWORD")
	}
	for p, id := range c.Identities {
		if !slices.Contains(c.Peers, p) {
			bad("peers", fmt.Sprintf("an identity is given for %s, which is no peer", p), "list the region as a peer")
		}
		if id.NKey != "" && !nkeys.IsValidPublicUserKey(id.NKey) {
			bad("peers", fmt.Sprintf("the NKey of %s is no public user key", p), "give the key that begins with U, made by: nk -gen user -pubout")
		}
		if id.Certificate != "" && c.Listen != "" && c.TLS.CAFile == "" {
			bad("peers", fmt.Sprintf("%s is to be known by its certificate, and none is asked for", p), "set nats.tls.ca_file")
		}
	}
	for _, d := range c.Dial {
		if _, err := dialURL(d); err != nil {
			bad("nats.dial", err.Error(), "write it like nats-leaf://host:7422 or tls://host:7422")
		}
	}
	return errors.Join(errs...)
}

func dialURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "nats-leaf://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, errors.New("an entry is no URL") // the entry may hold a password
	}
	switch u.Scheme {
	case "nats-leaf", "nats", "tls", "ws", "wss":
	default:
		return nil, fmt.Errorf("scheme %q is unknown", u.Scheme)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "7422")
	}
	return u, nil
}

// hasPassword reports whether a password is configured; an empty file counts as none.
func (c *Config) hasPassword() bool {
	pass, err := c.password()
	return err != nil || pass != ""
}

// password is the present password.
func (c *Config) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	return secret(c.PasswordFile)
}

// secret reads a one-line file. The contents never appear in an error.
func secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line), nil
}
