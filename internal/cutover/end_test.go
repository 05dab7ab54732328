package cutover

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A connection string that leads to another region, to a copy, or to a database that nobody has named is refused, by those commands that need the region there.
func TestOpenAsksWhoseDatabaseItIs(t *testing.T) {
	t.Parallel()
	eu, us := server.Database(t), server.Database(t)
	here, there := pgtest.Connect(t, eu), pgtest.Connect(t, us)
	pgtest.Exec(t, here, "create schema pgwaltz", node.Schema, node.HomeSchema, node.InsertSQL(node.Row{Region: "eu", Cluster: "shop"}))
	cfg := config.Default()
	cfg.Cluster, cfg.Region, cfg.Postgres.DSN = "shop", "eu", config.NewDSN(eu)
	cfg.Peers = []config.Peer{{Region: "us", DSN: config.NewDSN(us)}}
	for _, step := range []struct {
		name, sql           string
		both, beside, alone string // what each says; "" is fine
	}{
		{"nobody's", "create schema pgwaltz; " + node.Schema + "; " + node.HomeSchema, "no region of pgwaltz", "", ""},
		{"a third region's", node.InsertSQL(node.Row{Region: "ap", Cluster: "shop"}), "which is region ap of cluster shop", "which is region ap of cluster shop", "region ap"},
		{"of another cluster", "update pgwaltz.node set region = 'us', cluster = 'mill'", "of cluster mill", "of cluster mill", "of cluster mill"},
		{"the region's", "update pgwaltz.node set cluster = 'shop'", "", "", ""},
		{"a copy", "insert into pgwaltz.home (system_id, database) values (7, 8)", "which is a copy", "", ""},
		{"where nobody notes that", "create table pgwaltz.mode (region text, mode text, settled boolean, since timestamptz); insert into pgwaltz.mode values ('us', 'native', true, now())", "", "", ""},
	} {
		pgtest.Exec(t, there, step.sql)
		for need, says := range map[Need]string{Both: step.both, Beside: step.beside, Source: step.alone} {
			e, err := Open(t.Context(), cfg, Way{}, need)
			if need == Source {
				switch {
				case err != nil:
					t.Fatalf("%s: %v", step.name, err)
				case says == "" && (e.Destination.Conn == nil || e.Destination.Why != nil):
					t.Errorf("%s: the destination cannot be asked: %v", step.name, e.Destination.Why)
				case says != "" && (e.Destination.Conn != nil || e.Destination.Why == nil || !strings.Contains(e.Destination.Why.Error(), says)):
					t.Errorf("%s: %v, want %q", step.name, e.Destination.Why, says)
				}
				e.Close(t.Context())
				if _, err := Open(t.Context(), cfg, Way{From: "us"}, Source); (err == nil) != (says == "") {
					t.Errorf("%s, as the source: %v", step.name, err)
				}
				continue
			}
			var coded interface{ ExitCode() int }
			switch {
			case says == "" && err != nil:
				t.Errorf("%s: %v", step.name, err)
			case says != "" && (err == nil || !strings.Contains(err.Error(), says) || !errors.As(err, &coded) || coded.ExitCode() != 4):
				t.Errorf("%s: %v, want %q", step.name, err, says)
			}
			if err == nil {
				e.Close(t.Context())
			}
		}
	}
}

// The stream is applied from a slot of one database: another one of that server is not the source.
func TestSlotOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	p.applied("0/8")
	slot := "of_" + p.s.Config().Database
	pgtest.Exec(t, p.d, `update pgwaltz.checkpoint set slot = '`+slot+`'`)
	look := func() string {
		t.Helper()
		way, err := p.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return way.broken
	}
	other := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, other, `select pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)
	if got := look(); !strings.Contains(got, "is of database "+other.Config().Database) {
		t.Errorf("%q", got)
	}
	pgtest.Exec(t, other, `select pg_drop_replication_slot('`+slot+`')`)
	pgtest.Exec(t, p.s, `select pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)
	if got := look(); got != "" {
		t.Errorf("%q", got)
	}
	pgtest.Exec(t, p.s, `select pg_drop_replication_slot('`+slot+`')`)
}
