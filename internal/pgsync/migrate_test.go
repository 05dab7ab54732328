package pgsync

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

const twoTables = `jobs:
  Users_One.Way:
    source: {dsn: "postgresql://replica:pw1@global-db:5432/account?sslmode=disable"}
    destination: {dsn: "host=cn-db user=replica password=pw2 dbname=account"}
    tables: {users: {columns: [uuid]}, "Odd.Name": {delete: true}}
`

// What is written is a configuration that a sidecar takes, of the same databases and tables.
func TestMigrate(t *testing.T) {
	t.Parallel()
	f, err := parse("f.yaml", []byte(twoTables))
	if err != nil {
		t.Fatal(err)
	}
	files, notes, err := Migrate(f, Migration{Regions: [2]string{"global", "cn"}, Link: "127.0.0.1:7422"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ region, peer, dsn string }{{"global", "cn", "pw1"}, {"cn", "global", "pw2"}} {
		path := filepath.Join(t.TempDir(), "r.yaml")
		if err := os.WriteFile(path, files[i], 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(path, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, files[i])
		}
		if cfg.Cluster != "users-one-way" || cfg.Region != want.region || cfg.PeerNames()[0] != want.peer || !strings.Contains(cfg.Postgres.DSN.Reveal(), want.dsn) {
			t.Errorf("region %s is\n%s", want.region, files[i])
		}
		if !cfg.Selected("public", "users") || !cfg.Selected("public", "Odd.Name") || cfg.Selected("public", "others") {
			t.Errorf("region %s has other tables than the job:\n%s", want.region, files[i])
		}
	}
	if len(notes) != 3 {
		t.Errorf("notes: %q", notes)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, want string }{
		{"jobs:", "job:", "job"},
		{"columns: [uuid]", "colums: [uuid]", "colums"},
		{"columns: [uuid]", "columns: []", "columns is empty"},
		{"tables:", "batch_size: 0\n    tables:", "batch_size 0"},
		{"tables:", "poll_interval: often\n    tables:", "often"},
		{`dsn: "host=cn-db user=replica password=pw2 dbname=account"`, `dsn: "host=cn-db port=x password=pw2"`, "destination.dsn is no connection string"},
		{`dsn: "host=cn-db user=replica password=pw2 dbname=account"`, ``, "destination.dsn is missing"},
	} {
		_, err := parse("f.yaml", []byte(strings.Replace(twoTables, tt.old, tt.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "pw2") {
			t.Errorf("%s: %v", tt.new, err)
		}
	}
}
