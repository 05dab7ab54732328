package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"
)

const (
	filesEvery = 2 * time.Second
	// goneAfter is at how many looks in a row a file cannot be read until it counts as gone.
	goneAfter = 3
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

// unread stands for a file that cannot be read.
const unread = ""

// files are what a renewal changes, with the sum of what each holds, or unread.
func (c *Config) files() map[string]string {
	out := map[string]string{}
	for _, path := range append(c.doorFiles(), c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile, c.CredentialsFile, c.PasswordFile) {
		if path == "" {
			continue
		}
		out[path] = unread
		if text, err := os.ReadFile(path); err == nil {
			out[path] = fmt.Sprintf("%x", sha256.Sum256(text))
		}
	}
	return out
}

// doorFiles are those that the listener reads for every connection: its password, and the tokens of
// peers. A change of them ends the links that were let in with the former ones.
func (c *Config) doorFiles() []string {
	if c.Listen == "" {
		return nil
	}
	list := []string{c.PasswordFile}
	for _, i := range c.Identities {
		list = append(list, i.TokenFile)
	}
	return list
}

// renewal is what is known of the files.
type renewal struct {
	cfg   *Config
	log   *slog.Logger
	seen  map[string]string // in use
	gone  map[string]int    // path -> at how many looks in a row it could not be read
	unfit map[string]string // what could not be used, so that it is said once
}

// look reports whether there is something to take into use. A file that cannot be read is being
// written, at first, and holds up no other one. After goneAfter looks that is said: what was read
// from it stays in use, but for a secret of the listener, which lets nobody in any more.
func (r *renewal) look() bool {
	now := r.cfg.files()
	door := r.cfg.doorFiles()
	for path, sum := range now {
		if sum != unread {
			delete(r.gone, path)
			continue
		}
		r.gone[path]++
		lets := slices.Contains(door, path)
		if r.gone[path] == goneAfter {
			r.log.Error("a file with a certificate, key, password or token cannot be read", "file", path, "lets_in", lets)
		}
		if r.gone[path] < goneAfter || !lets {
			now[path] = r.seen[path]
		}
	}
	if maps.Equal(now, r.seen) {
		return false
	}
	if err := r.cfg.loads(); err != nil {
		if !maps.Equal(now, r.unfit) {
			r.log.Error("renewed files cannot be used; the former ones stay in use", "error", err)
			r.unfit = now
		}
		return false
	}
	r.seen, r.unfit = now, nil
	return true
}

// watchFiles takes renewed certificates, credentials and passwords into use without a restart of
// the process, and speaks of certificates that end. used is what the files held before the start.
func (b *Broker) watchFiles(used map[string]string) {
	files := renewal{cfg: &b.cfg, log: b.log, seen: used, gone: map[string]int{}}
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
		if !files.look() {
			continue
		}
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

// loads reports whether the files that a start needs can be used: the TLS files fit together, and
// there is what we dial with.
func (c *Config) loads() error {
	if c.TLS.set() {
		if _, err := c.TLS.config(true); err != nil {
			return err
		}
	}
	if len(c.Dial) == 0 && c.URL == "" {
		return nil
	}
	if _, err := c.password(); err != nil {
		return err
	}
	if c.CredentialsFile == "" || c.User != "" {
		return nil
	}
	_, err := credentials(c.CredentialsFile)
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
