package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connection is the environment that leads to the server that has answered, with the connection string's settings of TLS.
func connection(prefix string, c *pgx.Conn) []string {
	cfg := c.Config()
	host, port, addr := answered(cfg, c.PgConn().Conn().RemoteAddr())
	env := []string{prefix + "HOST=" + host, prefix + "HOSTADDR=" + addr, fmt.Sprintf("%sPORT=%d", prefix, port), prefix + "DATABASE=" + cfg.Database, prefix + "USER=" + cfg.User, prefix + "PASSWORD=" + cfg.Password}
	said := spoken(cfg.ConnString())
	for _, name := range []string{"sslmode", "sslrootcert", "sslcert", "sslkey"} {
		value, ok := said[name]
		if !ok {
			value = os.Getenv("PG" + strings.ToUpper(name))
		}
		if name == "sslmode" && value == "" {
			value = "prefer"
		}
		env = append(env, prefix+strings.ToUpper(name)+"="+value)
	}
	return env
}

// answered is which of the hosts of a connection string a session goes to, and its address; "" for a socket's folder.
func answered(cfg *pgx.ConnConfig, remote net.Addr) (host string, port uint16, addr string) {
	type place struct {
		host string
		port uint16
	}
	places := []place{{cfg.Host, cfg.Port}}
	for _, f := range cfg.Fallbacks {
		places = append(places, place{f.Host, f.Port})
	}
	at, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		for _, p := range places {
			if network, path := pgconn.NetworkAddress(p.host, p.port); network == "unix" && path == remote.String() {
				return p.host, p.port, ""
			}
		}
		return cfg.Host, cfg.Port, ""
	}
	ip := at.Addr().Unmap()
	for _, p := range places {
		if network, _ := pgconn.NetworkAddress(p.host, p.port); network == "unix" || p.port != at.Port() {
			continue
		}
		all, _ := net.LookupHost(p.host) //nolint:errcheck // then it is another one
		for _, a := range all {
			if one, err := netip.ParseAddr(a); err == nil && one.Unmap().WithZone("") == ip.WithZone("") {
				return p.host, p.port, ip.String()
			}
		}
	}
	return ip.String(), at.Port(), ip.String() // its name has another address by now
}

var word = regexp.MustCompile(`(\w+)\s*=\s*('(?:\\.|[^'\\])*'|(?:\\.|[^\s\\])*)`)

var escaped = regexp.MustCompile(`\\(.)`)

// spoken is the settings of a connection string that can be read.
func spoken(dsn string) map[string]string {
	out := map[string]string{}
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		if u, err := url.Parse(dsn); err == nil {
			for name, values := range u.Query() {
				out[name] = values[0]
			}
		}
		return out
	}
	for _, m := range word.FindAllStringSubmatch(dsn, -1) {
		value := m[2]
		if strings.HasPrefix(value, "'") {
			value = strings.TrimSuffix(value[1:], "'")
		}
		out[m[1]] = escaped.ReplaceAllString(value, "$1")
	}
	return out
}
