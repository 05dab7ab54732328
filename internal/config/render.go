package config

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Render returns the configuration in effect as YAML, with every secret masked. It is not
// meant to be loaded again.
func (c *Config) Render() ([]byte, error) {
	shown := *c
	shown.NATS.URL = maskURLs(c.NATS.URL)
	shown.NATS.Dial = make([]string, len(c.NATS.Dial))
	for i, d := range c.NATS.Dial {
		shown.NATS.Dial[i] = maskURLs(d)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&shown); err != nil {
		return nil, fmt.Errorf("render configuration: %w", err)
	}
	return b.Bytes(), nil
}

// maskURLs masks the passwords and tokens of addresses that are separated by commas.
func maskURLs(s string) string {
	if s == "" {
		return ""
	}
	list := strings.Split(s, ",")
	for i, one := range list {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			list[i] = masked
			continue
		case u.User == nil:
		default:
			if _, has := u.User.Password(); has {
				u.User = url.UserPassword(u.User.Username(), masked)
			} else {
				u.User = url.User(masked) // a lone user is a token
			}
		}
		list[i] = u.String()
	}
	return strings.Join(list, ",")
}

// Warnings lists what is legal and probably not meant. They do not stop a start.
func (c *Config) Warnings() []Problem {
	p := &problems{lines: c.lines, env: c.env}
	if c.lines["postgres.dsn"] > 0 && c.env["postgres.dsn"] == "" && c.Postgres.Password.IsZero() && c.Postgres.DSN.hasPassword() {
		p.add("postgres.dsn", "use postgres.password_file or PGWALTZ_POSTGRES_PASSWORD", "holds a password, in a file that people copy around")
	}
	if !c.NATS.TLS.Enabled() {
		for i, d := range c.NATS.Dial {
			u, err := url.Parse(d)
			if err == nil && u.Scheme != "tls" && u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
				p.add(fmt.Sprintf("nats.dial[%d]", i), "set nats.tls.ca_file or use tls://", "goes over the network without TLS")
			}
		}
	}
	if c.NATS.Insecure {
		p.add("nats.insecure", "use it on a private network only", "the listener takes anybody who can reach it")
	}
	if c.Tombstones.MinAge > 0 && c.Tombstones.MinAge < c.MaxClockSkew {
		p.add("tombstones.min_age", "use hours", "%s is shorter than max_clock_skew", c.Tombstones.MinAge)
	}
	signed := 0
	for _, peer := range c.Peers {
		if peer.PublicKey != "" {
			signed++
		}
	}
	if signed > 0 && signed < len(c.Peers) {
		p.add("peers", "give the others a public_key as well", "some peers have a public_key and some have none: the others' frames are not verified")
	}
	return p.list
}
