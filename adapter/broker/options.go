package broker

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	localUser    = "pgwaltz-local"
	operatorUser = "operator"

	// The link is given up after three unanswered pings; data coming in counts as an answer.
	pingInterval = 10 * time.Second
	maxPings     = 3

	// storeReserve is what JetStream may use beside the streams: consumers and metadata.
	storeReserve = 64 << 20
)

// Domain is the JetStream domain of a region's embedded server.
func Domain(region string) string { return "pgwaltz-" + region }

// maxPayload is the largest message that the server lets through. It does not follow this region's largest frame, since a peer
// may have a larger one: a message that is too large for one end of a link ends the link, again and again.
var maxPayload = int32(max(server.MAX_PAYLOAD_SIZE, wire.StoredSize(wire.MaxPayload)))

// options are the embedded server's settings, made anew for every start of it.
func (e *embedded) options() (*server.Options, error) {
	c := e.cfg
	o := &server.Options{
		ServerName: fmt.Sprintf("pgwaltz-%s-%s", c.Cluster, c.Region),
		DontListen: c.ClientListen == "", NoSigs: true, DisableJetStreamBanner: true,
		MaxPayload: maxPayload, PingInterval: pingInterval, MaxPingsOut: maxPings,
		JetStream: true, JetStreamDomain: Domain(c.Region), StoreDir: e.natsDir(), SyncAlways: e.waits.Load() || !e.lazy.Load(),
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: c.MaxBytes + c.MaxBytes/5 + storeReserve + e.reserved(),
		// An unreachable peer is a state that we report ourselves.
		ConnectErrorReports: 1 << 20, ReconnectErrorReports: 1 << 20,
	}
	if !o.SyncAlways {
		o.SyncInterval = everySync
	}
	door, err := e.door()
	if err != nil {
		return nil, err
	}
	e.doorman.Store(door)
	o.CustomClientAuthentication, o.AlwaysEnableNonce = door, true
	if err := e.links(o); err != nil {
		return nil, err
	}
	if c.ClientListen != "" {
		host, port, err := hostPort(e.client)
		if err != nil {
			return nil, err
		}
		o.Host, o.Port = host, port
		if c.TLS.CertFile != "" {
			if o.TLSConfig, err = c.TLS.config(true); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// door says who may connect: we ourselves, an operator, and the peers.
func (e *embedded) door() (*doorman, error) {
	d := &doorman{cfg: e.cfg, log: e.log.log, local: e.password}
	if e.cfg.ClientListen != "" {
		var err error
		if d.operator, err = e.operatorPassword(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (e *embedded) operatorPassword() (string, error) {
	path := filepath.Join(e.cfg.StoreDir, "operator.password")
	if pass, err := secret(path); err == nil && pass != "" {
		return pass, nil
	}
	pass := rand.Text()
	if err := os.WriteFile(path, []byte(pass+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("store operator password: %w", err)
	}
	return pass, nil
}

func (e *embedded) links(o *server.Options) error {
	c := e.cfg
	leaf := &o.LeafNode
	leaf.ReconnectInterval = time.Second
	leaf.TLSTimeout, leaf.AuthTimeout = 5, 5
	leaf.DialTimeout = 5 * time.Second
	leaf.Compression.Mode = server.CompressionOff // frames are compressed already
	if c.Listen != "" {
		host, port, err := hostPort(e.listen)
		if err != nil {
			return err
		}
		leaf.Host, leaf.Port, leaf.NoAdvertise = host, port, true
		if c.TLS.CertFile != "" {
			if leaf.TLSConfig, err = c.TLS.config(true); err != nil {
				return err
			}
		}
	}
	for _, d := range c.Dial {
		r, err := e.remote(d)
		if err != nil {
			return err
		}
		leaf.Remotes = append(leaf.Remotes, r)
	}
	return nil
}

func (e *embedded) remote(dial string) (*server.RemoteLeafOpts, error) {
	c := e.cfg
	u, err := dialURL(dial)
	if err != nil {
		return nil, err
	}
	// What we may do to the listener's side is its business (LinkRights); what it must not do to
	// us is ours.
	r := &server.RemoteLeafOpts{
		URLs: []*url.URL{u}, FirstInfoTimeout: 5 * time.Second,
		DenyImports: deniedToHub(c.Cluster, c.Region), DenyExports: []string{frames(c.Cluster), localInbox + ".>"},
	}
	r.Compression.Mode = server.CompressionOff
	if u.Scheme == "tls" || u.Scheme == "wss" || c.TLS.set() {
		r.TLS, r.TLSTimeout = true, 5
		if r.TLSConfig, err = c.TLS.config(false); err != nil {
			return nil, err
		}
	}
	switch pass, err := c.password(); {
	case err != nil:
		return nil, err
	case c.User != "":
		u.User = url.UserPassword(c.User, pass)
	case c.CredentialsFile != "":
		isCreds, err := credentials(c.CredentialsFile)
		if err != nil {
			return nil, err
		}
		if isCreds {
			r.Credentials = c.CredentialsFile
		} else {
			if r.Nkey, err = secret(c.CredentialsFile); err != nil { // the seed itself
				return nil, err
			}
		}
	default:
		u.User = url.User(c.Region) // proves nothing, and tells peers on loopback apart
	}
	return r, nil
}

// credentials tells a .creds file (true) from a bare NKey seed.
func credentials(path string) (bool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read credentials: %w", err)
	}
	return strings.Contains(string(b), "BEGIN NATS USER JWT"), nil
}

func hostPort(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("read address %q: %w", addr, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", 0, fmt.Errorf("read address %q: %w", addr, err)
	}
	return host, n, nil
}

// reserved sums up what the streams already in the store were allowed. The server counts
// that against its limit when it starts, and would drop a stream that does not fit: a
// lowered max_bytes must not cost a stream.
func (e *embedded) reserved() int64 {
	files, err := filepath.Glob(filepath.Join(e.jetstreamDir(), "*", "streams", "*", server.JetStreamMetaFile))
	if err != nil {
		return 0
	}
	var sum int64
	for _, f := range files {
		var meta struct {
			MaxBytes int64 `json:"max_bytes"`
		}
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &meta) == nil && meta.MaxBytes > 0 {
			sum += meta.MaxBytes
		}
	}
	return sum
}
