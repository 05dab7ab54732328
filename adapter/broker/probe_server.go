package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pgwaltz/pgwaltz/wire"
)

// lookAtServers tries every address of the external server, and with the first that lets us in
// JetStream, the rights of our user, and the peers.
func lookAtServers(ctx context.Context, c *Config, maxFrame int64) (out []Probe) {
	const about = "nats.url"
	asked := false
	for one := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Hostname() == "" {
			return append(out, Probe{about, Fails, "an address is no URL", "write nats://host:4222"})
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		s := &serverProbe{cfg: c}
		text, err := s.connect(ctx, u)
		if err != nil {
			out = append(out, unreachable(about, u.Host, err, c))
			continue
		}
		out = append(out, Probe{about, Works, u.Host + text, ""})
		if !asked {
			asked = true
			out = append(out, s.jetstream(ctx, maxFrame)...)
			out = append(out, s.rights(ctx)...)
			out = append(out, ask(ctx, c, s.dial)...)
		}
		s.nc.Close()
	}
	return out
}

// serverProbe is a connection to an external server.
type serverProbe struct {
	cfg *Config
	url string
	nc  *nats.Conn

	mu     sync.Mutex
	denied []string // what the server did not allow, in its words
}

// connect logs in at one address.
func (s *serverProbe) connect(ctx context.Context, u *url.URL) (string, error) {
	secure := ""
	if u.Scheme == "nats" || u.Scheme == "tls" {
		g, err := greet(ctx, u, s.cfg.TLS, u.Scheme == "tls" || s.cfg.TLS.set())
		if err != nil {
			return "", err
		}
		if g.leaf {
			return "", fmt.Errorf("%w for clients: servers link to this port", errNoGreeting)
		}
		secure = g.how()
	}
	s.url = u.String()
	var err error
	if s.nc, err = s.dial(s.cfg.Region); err != nil {
		return "", err
	}
	return fmt.Sprintf(": logged in, nats-server %s%s", s.nc.ConnectedServerVersion(), secure), nil
}

// dial opens a connection on which region may answer.
func (s *serverProbe) dial(region string) (*nats.Conn, error) {
	opts, err := s.cfg.login(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return nats.Connect(s.url, append(opts, nats.Name("pgwaltz-"+s.cfg.Cluster+"-"+s.cfg.Region+"-check"), nats.MaxReconnects(0), nats.Timeout(probeTimeout),
		nats.CustomInboxPrefix(inbox(s.cfg.Region, region)), nats.ErrorHandler(s.note))...)
}

func (s *serverProbe) note(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) || strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		s.mu.Lock()
		s.denied = append(s.denied, err.Error())
		s.mu.Unlock()
	}
}

// isDenied reports whether the server has refused to let us do it.
func (s *serverProbe) isDenied(subject string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.denied, func(text string) bool { return strings.Contains(text, `"`+subject+`"`) })
}

// jetstream looks for JetStream and for our stream.
func (s *serverProbe) jetstream(ctx context.Context, maxFrame int64) (out []Probe) {
	const about, remedy = "nats.url", "enable JetStream for the account: jetstream: enabled, with room for nats.max_bytes"
	if most := s.nc.MaxPayload(); maxFrame > most {
		out = append(out, Probe{about, Fails, fmt.Sprintf("the server takes messages of %d bytes, and publish.max_frame is %d", most, maxFrame), "raise max_payload of the server, or lower publish.max_frame"})
	}
	stream := wire.StreamName(s.cfg.Cluster, s.cfg.Region)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	m, err := s.nc.RequestWithContext(ctx, api("")+"STREAM.INFO."+stream, nil)
	var answer struct {
		State struct {
			Messages uint64 `json:"messages"`
			Bytes    uint64 `json:"bytes"`
		} `json:"state"`
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	const notFound = 10059
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return append(out, Probe{about, Fails, "the server has no JetStream, or not for this account", remedy})
	case err != nil && s.isDenied(api("")+"STREAM.INFO."+stream):
		return out // rights says so
	case err != nil:
		return append(out, Probe{about, Fails, "JetStream does not answer: " + err.Error(), remedy})
	case json.Unmarshal(m.Data, &answer) != nil:
		return append(out, Probe{about, Fails, "what answers is no JetStream", remedy})
	case answer.Error == nil:
		return append(out, Probe{about, Works, fmt.Sprintf("JetStream answers; stream %s holds %d messages, %d bytes", stream, answer.State.Messages, answer.State.Bytes), ""})
	case answer.Error.Code == notFound:
		return append(out, Probe{about, Works, fmt.Sprintf("JetStream answers; stream %s is not there yet: the sidecar makes it", stream), ""})
	}
	return append(out, Probe{about, Fails, "JetStream refuses: " + answer.Error.Description, remedy})
}

// rights tries what the user may say and hear, with messages that no server and no sidecar acts upon.
func (s *serverProbe) rights(ctx context.Context) []Probe {
	const about = "nats.user"
	r := ClientRights(s.cfg.Cluster, s.cfg.Region, s.cfg.Peers)
	var say, hear []string
	for _, subject := range r.Subscribe {
		hear = append(hear, subject)
		if sub, err := s.nc.SubscribeSync(subject); err == nil {
			defer sub.Unsubscribe() //nolint:errcheck // the connection is closed anyway
		}
	}
	for _, subject := range r.Publish {
		subject = strings.NewReplacer("*", "check", ">", "check").Replace(subject)
		say = append(say, subject)
		_ = s.nc.PublishMsg(harmless(subject, inbox(s.cfg.Region, s.cfg.Region)+".check", s.cfg))
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return []Probe{{about, Doubtful, "the rights of the user could not be tried: " + err.Error(), ""}}
	}
	// Errors that the server sent before the answer are handed over by a goroutine of their own.
	deadline := time.Now().Add(200 * time.Millisecond)
	for time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	say = slices.DeleteFunc(say, func(x string) bool { return !s.isDenied(x) })
	hear = slices.DeleteFunc(hear, func(x string) bool { return !s.isDenied(x) })
	if len(say)+len(hear) == 0 {
		return []Probe{{about, Works, "the user may say and hear what a sidecar of this region has to", ""}}
	}
	var out []Probe
	const remedy = "grant it; docs/security.md lists what a region needs of an external server"
	if len(say) > 0 {
		out = append(out, Probe{about, Fails, "the user may not publish to " + list(say), remedy})
	}
	if len(hear) > 0 {
		out = append(out, Probe{about, Fails, "the user may not subscribe to " + list(hear), remedy})
	}
	return out
}

// harmless is a message to a subject that changes nothing where it may pass: a call of JetStream
// with a body that is refused, a purge of nothing, a frame for another stream, an empty acknowledgement.
func harmless(subject, reply string, c *Config) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Reply = reply
	switch {
	case strings.Contains(subject, "STREAM.PURGE."):
		m.Data = []byte(`{"filter":"pgwaltz.check.nothing"}`)
	case strings.HasPrefix(subject, api("")):
		m.Data = []byte("{")
	case subject == wire.Subject(c.Cluster, c.Region):
		m.Header.Set(nats.ExpectedStreamHdr, "pgwaltz-check")
	}
	return m
}
