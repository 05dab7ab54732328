package supervisor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
)

// A session that changes a region is in that region's database, and in the one of run.
func TestConnectAsksWhoseDatabaseItIs(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "whose", "")
	refused := func(says string, cfg config.Config) {
		t.Helper()
		conn, err := supervisor.Connect(t.Context(), &cfg)
		var wrong *node.WrongError
		switch {
		case says == "" && err == nil:
			conn.Close(t.Context())
		case says == "" || !errors.As(err, &wrong) || !strings.Contains(err.Error(), says):
			t.Errorf("%v, want %q", err, says)
		}
	}
	admin := *us.cfg
	admin.Postgres.AdminDSN = eu.cfg.Postgres.DSN
	refused("postgres.admin_dsn leads to database", admin) // neither is named yet
	admin.Postgres.AdminDSN = us.cfg.Postgres.DSN
	refused("", admin)
	eu.setup()
	us.setup()
	refused("", *us.cfg)
	admin.Postgres.AdminDSN = eu.cfg.Postgres.DSN
	refused("postgres.admin_dsn of region us of cluster whose leads to", admin)
	other := *us.cfg
	other.Region = "asia"
	refused("postgres.dsn of region asia of cluster whose leads to", other)
	other = *us.cfg
	other.Cluster = "mill"
	refused("of cluster mill leads to", other)
}

// The way back would go by what another region says of its stream.
func TestNativeBackAtAnotherRegion(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "wrongback", "nats: {url: \"nats://127.0.0.1:1\"}\n")
	eu.setup()
	us.setup()
	us.must(config.ModeNative)
	eu.exec(`update pgwaltz.node set region = 'asia'`)
	if _, err := us.to(config.ModeStream); codes(err) != "wrong_node" {
		t.Errorf("%q: %v", codes(err), err)
	}
	eu.exec(`update pgwaltz.node set region = 'eu'`)
	us.must(config.ModeStream)
}
