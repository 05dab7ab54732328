package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/admin"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// The tables that the commands read, as setup makes them, but for the columns of parked that they do not read.
const sideTables = `CREATE SCHEMA pgwaltz;` + audit.Schema + ";" + pgstore.Schema + `;
CREATE TABLE pgwaltz.parked (id bigint, origin text);
INSERT INTO pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, chain, stream_seq, transactions)
 VALUES ('us', '7', 1, 'pgwaltz_us', 1, 42, '0/16B3748', decode(repeat('00', 32), 'hex'), 99, 7);
INSERT INTO pgwaltz.parked VALUES (1, 'us')`

// bench is a database with the side tables and a configuration for it.
type bench struct {
	config string
	conn   *pgx.Conn
}

func setup(t *testing.T, listen string) *bench {
	t.Helper()
	dsn, dir := pgtest.New(t).Database(t), t.TempDir() // slots belong to the whole server
	conn := pgtest.Connect(t, dsn)
	pgtest.Exec(t, conn, sideTables, `SELECT pg_create_logical_replication_slot('pgwaltz_demo_eu', 'pgoutput')`)
	path := filepath.Join(dir, "pgwaltz.yaml")
	text := fmt.Sprintf("cluster: demo\nregion: eu\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: us}]\nnats: {listen: '127.0.0.1:0', store_dir: %q}\nhttp: {listen: %q}\n",
		dsn, filepath.Join(dir, "store"), listen)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &bench{config: path, conn: conn}
}

func TestConflictsListAndShow(t *testing.T) {
	t.Parallel()
	b := setup(t, "127.0.0.1:0")
	records := []audit.Record{
		{EventID: [16]byte{1}, Region: "eu", Relation: wal.RelationName{Schema: "public", Name: "users"}, Key: []byte(`{"id": 7}`), Type: "update_origin_differs",
			Verdict: "apply", Reason: "version", Winner: "us", Loser: "eu", LocalRow: []byte(`{"id": 7, "v": "mine"}`), RemoteRow: []byte(`{"id": 7, "v": "theirs"}`), Origin: "us"},
		{EventID: [16]byte{2}, Region: "eu", Relation: wal.RelationName{Schema: "public", Name: "orders"}, Key: []byte(`{"id": 8}`), Type: "delete_missing", Verdict: "keep", Origin: "us"},
	}
	if _, err := b.conn.Exec(t.Context(), audit.InsertSQL, audit.InsertArgs(records)...); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "conflicts", "-config", b.config)
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != exitOK || stderr != "" || len(lines) != 3 || !strings.Contains(lines[1], "delete_missing") {
		t.Fatalf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, _ = call(t, "conflicts", "--config", b.config, "--table", "users", "--key", "7", "--since", "1h", "--json")
	var rows []audit.Row
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || code != exitOK || len(rows) != 1 || rows[0].Winner != "us" {
		t.Fatalf("code %d, %v, %s", code, err, stdout)
	}
	if code, stdout, _ = call(t, "conflicts", "-config", b.config, "-until", "1d", "-json"); code != exitOK || strings.TrimSpace(stdout) != "[]" {
		t.Fatalf("code %d, %q", code, stdout)
	}
	for _, args := range [][]string{{"conflicts", "show", "-config", b.config, "1"}, {"conflicts", "show", "1", "-config", b.config}, {"conflicts", "show", "-config", b.config, rows[0].EventID}} {
		if code, stdout, stderr = call(t, args...); code != exitOK || !strings.Contains(stdout, `"mine"`) || !strings.Contains(stdout, "remote us (winner)") {
			t.Fatalf("%v: code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
	if code, _, stderr = call(t, "conflicts", "show", "-config", b.config, "99"); code != exitOther || !strings.Contains(stderr, "no such conflict") {
		t.Fatalf("code %d, stderr %q", code, stderr)
	}
}

func TestStatusOfASidecarThatIsDown(t *testing.T) {
	t.Parallel()
	b := setup(t, "127.0.0.1:0")
	code, stdout, stderr := call(t, "status", "-config", b.config)
	if code != exitPeer || !strings.Contains(stderr, "the sidecar of region eu is down") {
		t.Fatalf("code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"state   down", "pgwaltz_demo_eu", "0/16B3748", "1 changes from us"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	code, stdout, _ = call(t, "status", "-config", b.config, "-json")
	var st status.Status
	if err := json.Unmarshal([]byte(stdout), &st); err != nil || code != exitPeer || st.State != status.Down || len(st.Inbound) != 1 || st.Inbound[0].Frame != 42 || st.Outbound == nil || st.Outbound.RetainedBytes == 0 {
		t.Fatalf("code %d, error %v, %s", code, err, stdout)
	}
}

func TestStatusOfARunningSidecar(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Minute)
	sidecar := admin.New(admin.Config{Status: func() status.Status {
		return status.Status{Cluster: "demo", Region: "eu", State: status.CatchingUp, StartedAt: at,
			Outbound:  &status.Outbound{State: status.Replicating, Slot: "pgwaltz_eu", SlotActive: true, Peers: []status.Peer{{Region: "us", LagBytes: 2048}}},
			Inbound:   []status.Inbound{{Origin: "us", State: status.CatchingUp, LagBytes: 5 << 20, LagSeconds: 2.5, BacklogFrames: 17, EndLSN: "0/1"}},
			Conflicts: status.Conflicts{Total: 3, LastAt: &at, Last: "update_deleted on public.users"}}
	}})
	server := httptest.NewServer(http.Handler(sidecar.Handler()))
	defer server.Close()
	b := setup(t, strings.TrimPrefix(server.URL, "http://"))
	code, stdout, stderr := call(t, "status", "-config", b.config)
	if code != exitOK || stderr != "" {
		t.Fatalf("code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"catching-up", "5.0 MiB", "2.5 s", "17 frames", "eu -> us", "unreachable", "2.0 KiB", " ago: update_deleted on public.users", "in use"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}
