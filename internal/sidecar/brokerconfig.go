package sidecar

import (
	"crypto/ed25519"
	"log/slog"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// LinkConfig is the broker's configuration of a region, for who wants to try the way to the peers
// without running a sidecar.
func LinkConfig(cfg *config.Config) (broker.Config, error) {
	s := &Sidecar{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := s.loadSigningKey(); err != nil {
		return broker.Config{}, err
	}
	c := s.brokerConfig()
	c.Position = nil
	return c, nil
}

// publicKeys are those by which peers sign.
func (s *Sidecar) publicKeys() map[string]ed25519.PublicKey {
	out := map[string]ed25519.PublicKey{}
	for _, p := range s.cfg.Peers {
		if key, err := p.Key(); err == nil && key != nil {
			out[p.Region] = key
		}
	}
	return out
}

// identities are what peers prove on a link.
func (s *Sidecar) identities() map[string]broker.Identity {
	out := map[string]broker.Identity{}
	for _, p := range s.cfg.Peers {
		if p.Identified() {
			out[p.Region] = broker.Identity{Certificate: p.Certificate, NKey: p.NKey, TokenFile: p.TokenFile}
		}
	}
	return out
}

func (s *Sidecar) brokerConfig() broker.Config {
	n := s.cfg.NATS
	c := broker.Config{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Peers: s.cfg.PeerNames(),
		URL: n.URL, CredentialsFile: n.CredentialsFile, User: n.User, PasswordFile: n.PasswordFile, Password: n.Password.Reveal(), Identities: s.identities(), Sign: s.signer(), PublicKeys: s.publicKeys(),
		TLS:    broker.TLS{CertFile: n.TLS.CertFile, KeyFile: n.TLS.KeyFile, CAFile: n.TLS.CAFile},
		Listen: n.Listen, Dial: n.Dial, StoreDir: n.StoreDir, MaxBytes: int64(n.MaxBytes), SyncAlways: s.cfg.Publish.Confirm == config.ConfirmPublished,
		AllowPlain: n.Insecure, Log: s.log.With("room", "broker"), Position: s.position, Stuck: s.stuck, Life: s.caps.life,
	}
	if c.URL != "" {
		c.Listen, c.Dial = "", nil
	}
	return c
}
