package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Grade says how a probe ended.
type Grade int

// Grades.
const (
	Works    Grade = iota
	Doubtful       // waiting may mend it
	Fails          // a person has to
)

// Probe is one thing that Look tried. It holds no secret.
type Probe struct {
	About  string // nats.listen, nats.dial[0], peers.us
	Grade  Grade
	What   string
	Remedy string // "" where there is nothing to do
}

const (
	// probeTimeout bounds each step of a probe.
	probeTimeout = 5 * time.Second
	// peerTimeout is how long a peer may take to answer over a link that has just come up.
	peerTimeout = 4 * time.Second
)

// Look tries the way to the peers as a sidecar with cfg would go it, and says what it found, in the
// order of the configuration. It stores nothing, and starts no server that anybody can reach: of
// the embedded server it tries whether it could start. maxFrame is the largest message that the
// sidecar sends; running says that a sidecar of this region is known to run on this machine. It
// takes some ten seconds at most.
func Look(ctx context.Context, cfg Config, maxFrame int64, running bool) []Probe {
	if err := cfg.check(); err != nil {
		return []Probe{{"nats", Fails, err.Error(), "correct the configuration"}}
	}
	out := lookAtCertificate(&cfg)
	if !cfg.embedded() {
		return append(out, lookAtServers(ctx, &cfg, maxFrame)...)
	}
	store, open := lookAtStore(&cfg)
	if running && !open {
		store = []Probe{{"nats.store_dir", Doubtful, "the sidecar that runs does not keep its stream in " + cfg.StoreDir + ", or this user may not look there",
			"run check as the user of the sidecar and with its environment (STATE_DIRECTORY)"}}
	}
	out = append(out, store...)
	if cfg.Listen != "" {
		out = append(out, lookAtListener(&cfg, open || running))
	}
	return append(out, lookAtLinks(ctx, &cfg)...)
}

// lookAtCertificate says when this region's own certificate ends.
func lookAtCertificate(c *Config) []Probe {
	if !c.TLS.set() {
		return nil
	}
	const about = "nats.tls"
	if _, err := c.TLS.config(false); err != nil {
		return []Probe{{about, Fails, err.Error(), "give the files of one certificate and its key, in PEM"}}
	}
	end, err := expiry(c.TLS.CertFile)
	switch left := time.Until(end); {
	case err != nil:
		return []Probe{{about, Fails, err.Error(), "give a certificate in PEM"}}
	case end.IsZero():
		return []Probe{{about, Works, "the authorities can be read; this region shows no certificate", ""}}
	case left <= 0:
		return []Probe{{about, Fails, "this region's certificate has expired on " + day(end), "renew " + c.TLS.CertFile}}
	case left < expirySoon:
		return []Probe{{about, Doubtful, "this region's certificate expires on " + day(end), "renew " + c.TLS.CertFile}}
	}
	return []Probe{{about, Works, "this region's certificate is good until " + day(end), ""}}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// lookAtLinks tries every address that is dialled, and then asks every peer for a sign of life.
func lookAtLinks(ctx context.Context, c *Config) []Probe {
	found := make([][]Probe, len(c.Dial))
	var group sync.WaitGroup
	for i, d := range c.Dial {
		group.Go(func() { found[i] = lookAtLink(ctx, c, fmt.Sprintf("nats.dial[%d]", i), d) })
	}
	group.Wait()
	out := slices.Concat(found...)
	var open []string
	for i, d := range c.Dial {
		if !slices.ContainsFunc(found[i], func(p Probe) bool { return p.Grade == Fails || p.Grade == Doubtful && p.Remedy != "" }) {
			open = append(open, d)
		}
	}
	if len(open) > 0 {
		return append(out, askPeers(ctx, c, open)...)
	}
	return out
}

// lookAtLink connects to one listener of another region, as far as the handshake of TLS.
func lookAtLink(ctx context.Context, c *Config, about, dial string) []Probe {
	u, err := dialURL(dial)
	if err != nil {
		return []Probe{{about, Fails, err.Error(), "write nats-leaf://host:7422 or tls://host:7422"}}
	}
	if u.Scheme == "ws" || u.Scheme == "wss" {
		return nil
	}
	h, err := greet(ctx, u, c.TLS, u.Scheme == "tls" || c.TLS.set())
	if err != nil {
		return []Probe{unreachable(about, u.Host, err, c)}
	}
	if !h.leaf {
		return []Probe{{about, Fails, u.Host + " is the port for clients of a NATS server, not the one that regions link to", "dial the address of nats.listen of the other region"}}
	}
	return append([]Probe{{about, Works, u.Host + " answers" + h.how(), ""}}, h.expiring(about)...)
}

// unreachable names why an address cannot be used.
func unreachable(about, host string, err error, c *Config) Probe {
	f := name(err, host, c.TLS)
	return Probe{about, f.grade, host + ": " + f.what, f.remedy}
}

func list(names []string) string {
	const most = 4
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
