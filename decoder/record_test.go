//go:build record

package decoder

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server = pgtest.Server{Settings: []string{"max_prepared_transactions = 4", "autovacuum = off"}}

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// TestRecord writes testdata/streams/*.stream anew, from a throw-away PostgreSQL, that of PGWALTZ_PG_BIN. Run it with
//
//	go test -tags record ./decoder -run TestRecord && go test ./decoder -update
func TestRecord(t *testing.T) {
	scripts, err := filepath.Glob("testdata/streams/*.sql")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("list scripts: %d found, %v", len(scripts), err)
	}
	version := strings.TrimSpace(psql(t, "postgres", "SHOW server_version"))
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sql")
		sql, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		// "-- setup ends" divides a script into what the slot does not see and what it does.
		setup, work, ok := strings.Cut(string(sql), "-- setup ends\n")
		if !ok {
			t.Fatalf("%s has no line '-- setup ends'", script)
		}
		psql(t, "postgres", "CREATE DATABASE "+name)
		psql(t, name, setup+`
			CREATE PUBLICATION p FOR ALL TABLES;
			SELECT pg_create_logical_replication_slot('`+name+`', 'pgoutput');`)
		psql(t, name, work)
		for _, format := range []struct{ word, binary string }{{"text", "false"}, {"binary", "true"}} {
			out := psql(t, name, fmt.Sprintf(`
				SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3;
				SET bytea_output = 'hex'; SET TimeZone = 'UTC'; SET search_path = '';
				SELECT lsn || ' ' || pg_catalog.encode(data, 'hex') FROM pg_catalog.pg_logical_slot_peek_binary_changes('%s', NULL, NULL,
				'proto_version', '1', 'publication_names', 'p', 'messages', 'true', 'binary', '%s')`, name, format.binary))
			head := fmt.Sprintf("# recorded from PostgreSQL %s, script %s.sql, values in %s\n", version, name, format.word)
			path := filepath.Join("testdata/streams", name+"."+format.word+".stream")
			if err := os.WriteFile(path, []byte(head+out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		psql(t, name, "SELECT pg_drop_replication_slot('"+name+"')")
	}
}

// psql runs a script in one session, each statement for itself, and returns its rows, unaligned.
func psql(t *testing.T, db, script string) string {
	t.Helper()
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "psql"), "-d", server.Cluster(t).DSN(db), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run script in %s: %v\n%s", db, err, stderr.String())
	}
	return string(out)
}
