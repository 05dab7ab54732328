package pg

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Every form of a connection string leads to the address that it names, for either kind of session.
func TestAddressesOfConnectionStrings(t *testing.T) {
	t.Parallel()
	service := filepath.Join(t.TempDir(), "service.conf")
	if err := os.WriteFile(service, []byte("[here]\nhost=::1\nport=7003\nuser=u\ndbname=d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dsn, want := range map[string][]string{
		"postgres://u@[::1]:7001/d?sslmode=disable":                         {"tcp [::1]:7001"},
		"host=::1 port=7002 user=u dbname=d sslmode=disable":                {"tcp [::1]:7002"},
		"service=here servicefile=" + service + " sslmode=disable":          {"tcp [::1]:7003"},
		"postgres:///d?host=/run/pg&port=7004&user=u&sslmode=disable":       {"unix /run/pg/.s.PGSQL.7004"},
		"host=/run/pg port=7005 user=u dbname=d":                            {"unix /run/pg/.s.PGSQL.7005"},
		"postgres://u@[fe80::1%25eth0]:7006/d?sslmode=disable":              {"tcp [fe80::1%eth0]:7006"},
		"postgres://u@127.0.0.1:7007,[::1]:7008/d?sslmode=disable":          {"tcp 127.0.0.1:7007", "tcp [::1]:7008"},
		"host=127.0.0.1,/run/pg port=7009 user=u dbname=d sslmode=disable":  {"tcp 127.0.0.1:7009", "unix /run/pg/.s.PGSQL.7009"},
		"postgresql://u:secret@[2001:db8::7]:7010/d?sslmode=disable&user=u": {"tcp [2001:db8::7]:7010"},
	} {
		var dialed []string
		o := Options{Region: "eu", Role: "test", Dial: func(_ context.Context, network, address string) (net.Conn, error) {
			dialed = append(dialed, network+" "+address)
			return nil, errors.New("nobody listens")
		}}
		if _, err := Connect(t.Context(), dsn, o); err == nil {
			t.Errorf("%s: connected", dsn)
		}
		if !slices.Equal(dialed, want) {
			t.Errorf("%s: dialed %q, want %q", dsn, dialed, want)
		}
		dialed = nil
		if _, err := ConnectReplication(t.Context(), dsn, o); err == nil {
			t.Errorf("%s: connected", dsn)
		}
		if !slices.Equal(dialed, want) {
			t.Errorf("%s, replication: dialed %q, want %q", dsn, dialed, want)
		}
	}
}
