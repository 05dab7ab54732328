package sidecar

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

// loadKey reads the region's signing key: a PEM file (PKCS #8), or 32 bytes of seed in base64.
func loadKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read signing key %s: %w", path, err)
		}
		if k, ok := key.(ed25519.PrivateKey); ok {
			return k, nil
		}
		return nil, fmt.Errorf("read signing key %s: it is not an ed25519 key", path)
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read signing key %s: want PEM or 32 bytes in base64", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// loadSigningKey reads this region's own key, where it signs.
func (s *Sidecar) loadSigningKey() error {
	path := s.cfg.Signing.KeyFile
	if path == "" {
		return nil
	}
	key, err := loadKey(path)
	if err != nil {
		return &config.Error{File: s.cfg.File(), Problems: []config.Problem{{
			Key: "signing.key_file", What: err.Error(), Remedy: "make one with: openssl genpkey -algorithm ed25519",
		}}}
	}
	s.key = key
	return nil
}

// signer returns what signs frames; nil leaves them unsigned.
func (s *Sidecar) signer() func([]byte) []byte {
	if s.key == nil {
		return nil
	}
	return func(b []byte) []byte { return ed25519.Sign(s.key, b) }
}

func (s *Sidecar) publicKey() ed25519.PublicKey {
	if s.key == nil {
		return nil
	}
	return s.key.Public().(ed25519.PublicKey)
}
