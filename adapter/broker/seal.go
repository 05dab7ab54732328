package broker

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"

	"github.com/nats-io/nats.go"
)

// sealHeader carries the signature of an acknowledgement or a request, over its subject and
// its data. The subject names cluster, sender and addressee.
const sealHeader = "Pgwaltz-Signature"

var errSeal = errors.New("its signature is missing or wrong")

// seal signs a message, where this region signs.
func (b *Broker) seal(m *nats.Msg) {
	if b.cfg.Sign != nil {
		m.Header.Set(sealHeader, base64.StdEncoding.EncodeToString(b.cfg.Sign(sealed(m))))
	}
}

// unseal checks the signature of a peer's message, where its key is known.
func (b *Broker) unseal(m *nats.Msg, peer string) error {
	key := b.cfg.PublicKeys[peer]
	if key == nil {
		return nil
	}
	sig, err := base64.StdEncoding.DecodeString(m.Header.Get(sealHeader))
	if err != nil || !ed25519.Verify(key, sealed(m), sig) {
		return errSeal
	}
	return nil
}

func sealed(m *nats.Msg) []byte { return append([]byte(m.Subject+"\n"), m.Data...) }
