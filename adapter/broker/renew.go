package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

const (
	filesEvery = 2 * time.Second
	// expirySoon is from when on a certificate that ends is spoken of, once a day.
	expirySoon  = 14 * 24 * time.Hour
	expiryEvery = 24 * time.Hour
)

// own names this region's certificate among Certificates.
const own = "own"

// Certificates says when certificates end: this region's under "own", those that peers have shown
// to our listener under their names.
func (b *Broker) Certificates() map[string]time.Time {
	out := map[string]time.Time{}
	if end, err := expiry(b.cfg.TLS.CertFile); err == nil && !end.IsZero() {
		out[own] = end
	}
	if b.emb != nil {
		if d := b.emb.doorman.Load(); d != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			for p, end := range d.expires {
				out[p] = end
			}
		}
	}
	return out
}

// expiry is when the first certificate of a file ends; zero without a file.
func expiry(path string) (time.Time, error) {
	if path == "" {
		return time.Time{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, fmt.Errorf("read certificate %s: it is no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("read certificate %s: %w", path, err)
	}
	return cert.NotAfter, nil
}

// files are what a renewal changes. The listener reads its password, and the tokens of peers, for
// every connection; a change of them ends the links that were let in with the former ones.
func (c *Config) files() [][]byte {
	list := []string{c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile, c.CredentialsFile, c.PasswordFile}
	if c.Listen != "" {
		for _, p := range slices.Sorted(maps.Keys(c.Identities)) {
			list = append(list, c.Identities[p].TokenFile)
		}
	}
	var out [][]byte
	for _, path := range list {
		if path == "" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil // being written
		}
		sum := sha256.Sum256(text)
		out = append(out, sum[:])
	}
	return out
}

// watchFiles takes renewed certificates, credentials and passwords into use without a restart of
// the process, and speaks of certificates that end.
func (b *Broker) watchFiles() {
	seen := fmt.Sprintf("%x", b.cfg.files())
	said := map[string]time.Time{}
	tick := time.NewTicker(filesEvery)
	defer tick.Stop()
	for {
		b.speakOfExpiry(said)
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			return
		}
		files := b.cfg.files()
		now := fmt.Sprintf("%x", files)
		if files == nil || now == seen {
			continue
		}
		if err := b.cfg.loads(); err != nil {
			b.log.Error("renewed files cannot be used; the former ones stay in use", "error", err)
			seen = now
			continue
		}
		seen = now
		clear(said)
		b.log.Info("certificates, credentials or a password were renewed; connecting anew")
		if b.emb != nil {
			_ = b.restart("renewed files", true) // it tries again by itself
			continue
		}
		for _, nc := range b.conns() {
			if err := nc.ForceReconnect(); err != nil {
				b.log.Warn("reconnect with renewed files", "error", err)
			}
		}
	}
}

// loads reports whether the TLS files fit together.
func (c *Config) loads() error {
	if !c.TLS.set() {
		return nil
	}
	_, err := c.TLS.config(true)
	return err
}

func (b *Broker) speakOfExpiry(said map[string]time.Time) {
	for who, end := range b.Certificates() {
		left := time.Until(end)
		if left > expirySoon || time.Since(said[who]) < expiryEvery {
			continue
		}
		said[who] = time.Now()
		if left <= 0 {
			b.log.Error("a certificate has expired: no link can be made with it", "of", who, "expired", end.UTC().Format(time.RFC3339))
			continue
		}
		b.log.Warn("a certificate expires soon", "of", who, "expires", end.UTC().Format(time.RFC3339), "days", int(left.Hours()/24))
	}
}
