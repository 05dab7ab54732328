package broker

import (
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
)

// login is how we prove to an external server who we are, and how it has to prove who it is.
func (c *Config) login(log *slog.Logger) (opts []nats.Option, err error) {
	if c.TLS.set() {
		if _, err := c.TLS.config(false); err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure())
		if t := c.TLS; t.CertFile != "" { // both are read for every connection
			opts = append(opts, nats.ClientCert(t.CertFile, t.KeyFile))
		}
		if ca := c.TLS.CAFile; ca != "" {
			opts = append(opts, nats.RootCAs(ca))
		}
	}
	if c.User != "" {
		if _, err := c.password(); err != nil {
			return nil, err
		}
		opts = append(opts, nats.UserInfoHandler(func() (string, string) {
			pass, err := c.password() // anew for every connection: the file may have changed
			if err != nil {
				log.Warn("read the NATS password", "error", err)
			}
			return c.User, pass
		}))
	}
	if c.CredentialsFile != "" {
		isCreds, err := credentials(c.CredentialsFile)
		if err != nil {
			return nil, err
		}
		if isCreds {
			return append(opts, nats.UserCredentials(c.CredentialsFile)), nil
		}
		nkey, err := nats.NkeyOptionFromSeed(c.CredentialsFile)
		if err != nil {
			return nil, fmt.Errorf("read NKey seed: %w", err)
		}
		opts = append(opts, nkey)
	}
	return opts, nil
}
