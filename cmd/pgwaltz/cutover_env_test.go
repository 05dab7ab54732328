package main

import (
	"maps"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Of several hosts the command behind exec gets the one that has answered.
func TestAnswered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dsn        string
		remote     net.Addr
		host, addr string
		port       uint16
	}{
		{"host=127.0.0.1,/run/pg port=1,5555", &net.UnixAddr{Name: "/run/pg/.s.PGSQL.5555", Net: "unix"}, "/run/pg", "", 5555},
		{"host=/run/pg,localhost port=5555,6666 sslmode=disable", &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 6666}, "localhost", "127.0.0.1", 6666},
		{"postgres://u@10.0.0.1:1,10.0.0.2:2/d", &net.TCPAddr{IP: net.ParseIP("10.0.0.2"), Port: 2}, "10.0.0.2", "10.0.0.2", 2},
		{"postgres://u@10.0.0.1,10.0.0.2/d", &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.2"), Port: 5432}, "10.0.0.2", "10.0.0.2", 5432},
		{"postgres://u@10.0.0.1/d", &net.TCPAddr{IP: net.ParseIP("10.0.0.9"), Port: 5432}, "10.0.0.9", "10.0.0.9", 5432},
	} {
		cfg, err := pgx.ParseConfig(c.dsn)
		if err != nil {
			t.Fatal(err)
		}
		if host, port, addr := answered(cfg, c.remote); host != c.host || port != c.port || addr != c.addr {
			t.Errorf("%s: %s %d %q", c.dsn, host, port, addr)
		}
	}
}

func TestSpoken(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]map[string]string{
		"postgres://u:p@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b":           {"sslmode": "verify-full", "sslrootcert": "/a b"},
		`host=h password='a sslmode=disable \' b' sslmode = require sslkey=\'k`: {"host": "h", "password": "a sslmode=disable ' b", "sslmode": "require", "sslkey": "'k"},
		`host=h sslcert='' user=u`: {"host": "h", "sslcert": "", "user": "u"},
	} {
		if got := spoken(dsn); !maps.Equal(got, want) {
			t.Errorf("%s: %q", dsn, got)
		}
	}
}
