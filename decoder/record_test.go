package decoder

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var (
	record  = flag.Bool("record", false, "record testdata/streams anew from a throw-away PostgreSQL")
	pgbinFl = flag.String("pgbin", "/usr/lib/postgresql/15/bin", "PostgreSQL programs for -record")
)

// TestRecord writes testdata/streams/*.stream. Run it with
//
//	go test ./decoder -run TestRecord -record && go test ./decoder -update
func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("records only with -record")
	}
	s := startServer(t)
	scripts, err := filepath.Glob("testdata/streams/*.sql")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("list scripts: %d found, %v", len(scripts), err)
	}
	version := strings.TrimSpace(s.psql(t, "postgres", "SHOW server_version"))
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
		s.psql(t, "postgres", "CREATE DATABASE "+name)
		s.psql(t, name, setup+`
			CREATE PUBLICATION p FOR ALL TABLES;
			SELECT pg_create_logical_replication_slot('`+name+`', 'pgoutput');`)
		s.psql(t, name, work)
		for _, format := range []struct{ word, binary string }{{"text", "false"}, {"binary", "true"}} {
			out := s.psql(t, name, fmt.Sprintf(`
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
		s.psql(t, name, "SELECT pg_drop_replication_slot('"+name+"')")
	}
}

// server is a PostgreSQL that lives for one test, on a Unix socket only.
type server struct{ dir string }

func startServer(t *testing.T) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgwaltz-record-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// The server refuses to run as root.
	var cred *syscall.Credential
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(*pgbinFl, name), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("run %s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	conf := "wal_level = logical\nlisten_addresses = ''\nunix_socket_directories = '" + dir + "'\n" +
		"max_prepared_transactions = 4\nfsync = off\nautovacuum = off\n"
	if err := os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if cred != nil {
		if err := os.Chown(filepath.Join(data, "postgresql.auto.conf"), int(cred.Uid), int(cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	run("pg_ctl", "-D", data, "-l", filepath.Join(dir, "log"), "-w", "start")
	t.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop") })
	return &server{dir: dir}
}

// psql runs a script in one session and returns its rows, unaligned.
func (s *server) psql(t *testing.T, db, script string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(*pgbinFl, "psql"), "-h", s.dir, "-U", "postgres", "-d", db, "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run script in %s: %v\n%s", db, err, stderr.String())
	}
	return string(out)
}
