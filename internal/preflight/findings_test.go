package preflight_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// finding is the one of a code about something; "" finds the first.
func finding(fs preflight.Findings, code, about string) *preflight.Finding {
	i := slices.IndexFunc(fs, func(f preflight.Finding) bool { return f.Code == code && strings.Contains(f.What, about) })
	if i < 0 {
		return nil
	}
	return &fs[i]
}

// mended wants a finding of the code, does what heal does with its remedy, and wants it gone.
func mended(t *testing.T, look func() preflight.Findings, severity preflight.Severity, code, about string, heal func(remedy string)) {
	t.Helper()
	fs := look()
	f := finding(fs, code, about)
	if f == nil || f.Severity != severity {
		t.Errorf("no %s %s about %q in:\n%v", severity, code, about, fs)
		return
	}
	heal(f.Remedy)
	if left := finding(look(), code, about); left != nil {
		t.Errorf("%s is still there after %q: %s", code, f.Remedy, left.What)
	}
}

// Tables that need a word: each finding goes when its remedy is typed as it stands there.
func TestFindingsAboutTables(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(
		`create table public.parents (id int primary key)`, `create table public.children (id int primary key, p int references public.parents)`,
		`create table public.notes (id int primary key, p int references public.parents)`,
		`create table public.made (a int not null, k int generated always as (a * 2) stored primary key)`,
		`create table public.snmp (id uuid primary key, version smallint not null default 3)`,
		`create type public.num`,
		`create function public.num_in(cstring) returns public.num language internal immutable strict as 'int4in'`, `create function public.num_out(public.num) returns cstring language internal immutable strict as 'int4out'`,
		`create type public.num (input = public.num_in, output = public.num_out, like = int4)`,
		`create table public.strange (id public.num)`,
	)
	for _, op := range [][3]string{{"<", "lt", ">"}, {"<=", "le", ">="}, {"=", "eq", "="}, {">=", "ge", "<="}, {">", "gt", "<"}} {
		w.exec(fmt.Sprintf(`create function public.num_%s(public.num, public.num) returns bool language internal immutable strict as 'int4%[1]s'`, op[1]),
			fmt.Sprintf(`create operator public.%s (leftarg = public.num, rightarg = public.num, function = public.num_%s, commutator = operator(public.%s))`, op[0], op[1], op[2]))
	}
	w.exec(`create function public.num_cmp(public.num, public.num) returns int language internal immutable strict as 'btint4cmp'`,
		`create function public.num_hash(public.num) returns int language internal immutable strict as 'hashint4'`,
		`create function public.num_hash2(public.num, bigint) returns bigint language internal immutable strict as 'hashint4extended'`,
		`create operator class public.num_ops default for type public.num using btree as operator 1 public.<, operator 2 public.<=, operator 3 public.=, operator 4 public.>=, operator 5 public.>, function 1 public.num_cmp(public.num, public.num)`,
		`alter table public.strange add primary key (id)`)
	cfg := w.config("postgres", "replica_identity: keep\ntables: {exclude: [public.notes]}\n")
	look := func() preflight.Findings { return w.check(w.admin, cfg) }
	run := func(remedy string) { w.exec(remedy) }
	reload := func(extra string) func(string) {
		return func(string) {
			cfg = w.config("postgres", "replica_identity: keep\n"+extra)
		}
	}
	// Setup refuses what nobody could tell apart, and says the same.
	if _, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{}); err == nil || !strings.Contains(err.Error(), "when two values are equal is not known") {
		t.Errorf("setup with a key of unknown equality: %v", err)
	}
	mended(t, look, preflight.Error, "key_equality", "public.strange", func(remedy string) {
		if !strings.HasPrefix(remedy, "make a hash operator class") {
			t.Errorf("remedy %q", remedy)
		}
		w.exec(`create operator class public.num_hash_ops default for type public.num using hash as operator 1 public.=, function 1 public.num_hash(public.num), function 2 public.num_hash2(public.num, bigint)`)
	})
	mended(t, look, preflight.Error, "generated_key", "public.made", run)
	w.apply(w.admin, cfg)
	defer w.drop()
	mended(t, look, preflight.Warning, "foreign_keys", "children_p_fkey", reload("tables: {exclude: [public.notes]}\napply: {privileges: restorer}\n"))
	cfg = w.config("postgres", "replica_identity: keep\ntables: {exclude: [public.notes]}\n")
	mended(t, look, preflight.Warning, "unseen_orphans", "public.notes is not replicated", reload(""))
	mended(t, look, preflight.Warning, "not_a_version", "public.snmp", func(remedy string) {
		_, rule, _ := strings.Cut(remedy, "tables.rules: - ")
		reload("tables: {rules: [" + rule + "]}\n")(remedy)
	})
}

func (w *site) plan(cfg *config.Config) preflight.Findings {
	w.t.Helper()
	s, err := preflight.Plan(w.t.Context(), w.admin, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Findings
}

func TestFindingsOfSetup(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	cfg := w.config("postgres", "")
	plan := func() preflight.Findings { return w.plan(cfg) }
	mended(t, plan, preflight.Warning, "no_tables", "no table is selected", func(string) { w.exec(`create table public.a (id int primary key)`) })
	nobody := "nobody_" + w.region
	cfg = w.config("", "postgres: {dsn: \""+w.as(nobody)+"\", admin_dsn: \""+w.dsn+"\"}\n")
	mended(t, plan, preflight.Error, "role_missing", nobody, func(remedy string) { w.exec(remedy) })
	cfg = w.config("postgres", "")
	w.apply(w.admin, cfg)
	defer w.drop()
	w.exec("comment on schema pgwaltz is 'pgwaltz schema version 99'")
	mended(t, plan, preflight.Error, "schema_newer", "has version 99", func(remedy string) {
		if remedy != "use the newer program" {
			t.Errorf("remedy %q", remedy)
		}
		w.exec("comment on schema pgwaltz is 'pgwaltz schema version " + fmt.Sprint(preflight.SchemaVersion) + "'")
	})
	look := func() preflight.Findings { return w.check(w.admin, cfg) }
	database := w.text("current_database()")
	for about, set := range map[string]string{"temp_file_limit": "alter database " + database + " set temp_file_limit = 1000", "wal_sender_timeout": "alter role postgres in database " + database + " set wal_sender_timeout = 0"} {
		w.exec(set)
		mended(t, look, preflight.Warning, "setting", about, func(remedy string) { w.exec(remedy) })
	}
	cfg = w.config("postgres", "tombstones: {min_age: 1s}\n")
	mended(t, look, preflight.Warning, "configuration", "tombstones.min_age", func(remedy string) {
		if remedy != "use hours" {
			t.Errorf("remedy %q", remedy)
		}
		cfg = w.config("postgres", "tombstones: {min_age: 5h}\n")
	})
	// Triggers that sort behind ours: all of them are renamed by one remedy.
	w.exec(`create function public.f() returns trigger language plpgsql as $$ begin return new; end $$`,
		`create trigger "zzzz_z" before update on public.a for each row execute function public.f()`,
		`create trigger "`+strings.Repeat("zz", 30)+`é" before insert on public.a for each row execute function public.f()`,
		`create trigger late after insert on public.a for each row execute function public.f()`, `create trigger "late Two" after update on public.a for each row execute function public.f()`)
	cfg = w.config("postgres", "apply: {privileges: restorer}\n")
	w.apply(w.admin, cfg)
	mended(t, look, preflight.Warning, "late_trigger", "public.a", func(remedy string) { w.exec(remedy) })
	cfg = w.config("postgres", "")
	w.exec(`alter table public.a enable always trigger late`, `alter table public.a enable always trigger "late Two"`)
	mended(t, look, preflight.Warning, "after_trigger", "late, late Two", func(remedy string) { w.exec(remedy) })
	// Generated columns of a publication that somebody else made: from 18 on.
	w.exec(`create table public.made (id int primary key, v int, g int generated always as (v * 2) stored)`, `create publication theirs for table public.made`)
	cfg = w.config("postgres", "postgres: {dsn: \""+w.dsn+"\", publication: theirs}\ntables: {include: [public.made]}\n")
	eighteen := w.text("current_setting('server_version_num')::int >= 180000") == "true"
	if !eighteen {
		if f := finding(w.plan(cfg), "publication_generated", ""); f != nil {
			t.Errorf("before 18: %v", f)
		}
		return
	}
	mended(t, plan, preflight.Error, "publication_generated", "would fail", func(remedy string) { w.exec(remedy) })
	w.exec(`alter table public.made replica identity full`, `alter publication theirs set (publish_generated_columns = none)`)
	mended(t, look, preflight.Error, "publication_generated", "updates and deletes of public.made fail", func(remedy string) { w.exec(remedy) })
}

// A name with a line break in it cannot end a remark of the script that setup --dry-run prints for
// a superuser to run, nor begin a line of check's report.
func TestNamesCannotLeaveTheirPlace(t *testing.T) {
	t.Parallel()
	w := newSite(t, pgtest.New(t)) // origins belong to the whole server, and the script makes one
	const injected = "\ndrop table public.victim; --\rdrop table public.victim;\x1b[2J"
	name := `"e` + injected + `"`
	w.exec(`create table public.victim (id int primary key)`, `create table public.`+name+` (id int primary key, version int not null default 7)`)
	cfg := w.config("postgres", "")
	s, err := preflight.Plan(t.Context(), w.admin, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	s.Print(&script)
	text, _, _ := strings.Cut(script.String(), "-- the server keeps its WAL") // a slot is made in a transaction of its own
	if _, err := w.admin.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
		t.Errorf("the script: %v", err)
	}
	if got := w.text(`to_regclass('public.victim')`); got != "victim" && got != "public.victim" {
		t.Errorf("the script has dropped the victim: %s", got)
	}
	for _, line := range strings.FieldsFunc(script.String(), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok && strings.Contains(rest, "\x1b") {
			t.Errorf("a remark has a control character: %q", line)
		}
	}
	w.apply(w.admin, cfg)
	defer w.drop()
	var report strings.Builder
	w.check(w.admin, cfg).Print(&report, true)
	if !strings.Contains(report.String(), `drop table`) || strings.ContainsAny(report.String(), "\r\x1b") || strings.Contains(report.String(), "\ndrop") {
		t.Errorf("the report:\n%q", report.String())
	}
}

// A server that does not keep what a slot needs, or is none to write to.
func TestFindingsAboutTheServer(t *testing.T) {
	t.Parallel()
	bin, err := pgcluster.FindBin(os.Getenv("PGWALTZ_PG_BIN"))
	if err != nil {
		pgtest.New(t).Cluster(t) // skips, or fails, as every test without PostgreSQL
	}
	dir, err := os.MkdirTemp("", "pgwf-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	c, err := pgcluster.Create(t.Context(), pgcluster.Config{Bin: bin, Dir: filepath.Join(dir, "c"), Settings: []string{"fsync = off", "max_slot_wal_keep_size = '64MB'", "checkpoint_timeout = '1h'", "max_wal_size = '10GB'", "autovacuum = off"}})
	if err != nil {
		t.Fatal(err)
	}
	start := func() {
		t.Helper()
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() { _ = c.Stop() })
	w := &site{t: t, dsn: c.DSN("postgres"), region: "eu"}
	w.admin = w.connect("postgres")
	w.exec(`create table public.a (id int primary key)`)
	cfg := w.config("postgres", "")
	look := func() preflight.Findings { return w.check(w.admin, cfg) }
	alter := func(remedy string) {
		t.Helper()
		for _, s := range strings.Split(remedy, ", then ") {
			w.exec(s)
		}
		w.admin.Close(t.Context())
		w.admin = w.connect("postgres") // the new setting is seen for sure
	}
	w.apply(w.admin, cfg)

	mended(t, look, preflight.Warning, "wal_hold", "below publish.wal_hold_max", func(string) { cfg = w.config("postgres", "publish: {wal_hold_max: 32MiB}\n") })
	if w.text("current_setting('server_version_num')::int >= 180000") == "true" {
		w.exec(`alter system set idle_replication_slot_timeout = '1h'`)
		alter(`select pg_reload_conf()`)
		mended(t, look, preflight.Warning, "slot_idle_timeout", "loses its slot", alter)
	} else if f := finding(look(), "slot_idle_timeout", ""); f != nil {
		t.Errorf("before 18: %v", f)
	}

	write := func() {
		t.Helper()
		for range 5 {
			w.exec(`select pg_logical_emit_message(false, 'x', repeat('x', 16000000))`, `select pg_switch_wal()`)
		}
	}
	write()
	mended(t, look, preflight.Warning, "slot_unreserved", "may be lost", func(string) { alter("alter system set max_slot_wal_keep_size = '10GB', then select pg_reload_conf()") })
	alter("alter system set max_slot_wal_keep_size = '64MB', then select pg_reload_conf()")
	w.exec(`checkpoint`)
	if f := finding(look(), "slot_lost", "changes since are not in the WAL any more"); f == nil || f.Severity != preflight.Error || f.Remedy != "pgwaltz resync --config FILE --recreate-slot" {
		t.Errorf("a lost slot: %v", look()) // case SL-05 follows the remedy
	}
	w.exec(`select pg_drop_replication_slot('` + cfg.Postgres.Slot + `')`)
	w.apply(w.admin, cfg)

	// A pooler between the sidecar and the server refuses the session that reads the slot.
	runtime := w.config("", "postgres: {dsn: \""+pooler(t, w.dsn)+"\"}\n")
	mended(t, func() preflight.Findings { return w.check(w.admin, runtime) }, preflight.Error, "replication_connection", "unsupported startup parameter", func(remedy string) {
		if !strings.Contains(remedy, "connect to PostgreSQL itself, not through a pooler") {
			t.Errorf("remedy %q", remedy)
		}
		runtime = cfg
	})

	// A role whose password gives away the whole server.
	w.exec(`create role rep login`)
	own := w.config("", "postgres: {dsn: \""+w.as("rep")+"\", admin_dsn: \""+w.dsn+"\"}\n")
	w.apply(w.admin, own)
	mended(t, func() preflight.Findings { return w.check(w.connect("rep"), own) }, preflight.Warning, "copies_server", "copy the whole server", func(remedy string) {
		_, lines, _ := strings.Cut(remedy, "select pg_reload_conf(): ")
		hba := filepath.Join(dir, "c", "data", "pg_hba.conf")
		old, err := os.ReadFile(hba)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hba, append([]byte(strings.ReplaceAll(lines, "; ", "\n")+"\n"), old...), 0o600); err != nil {
			t.Fatal(err)
		}
		w.exec(`select pg_reload_conf()`)
		w.admin.Close(t.Context())
		w.admin = w.connect("postgres")
		for start := time.Now(); pg.CopiesServer(t.Context(), w.as("rep"), pg.Options{Region: "eu", Role: "test"}) && time.Since(start) < time.Minute; {
		}
	})

	// A standby.
	w.admin.Close(t.Context())
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c", "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	start()
	w.admin = w.connect("postgres")
	if _, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{}); err == nil || !strings.Contains(err.Error(), "the server is in recovery") {
		t.Errorf("setup on a standby: %v", err)
	}
	mended(t, look, preflight.Error, "in_recovery", "it takes no writes", func(string) { w.exec(`select pg_promote()`) })
}

// pooler stands before a server as PgBouncer does, and returns the connection string to it.
func pooler(t *testing.T, dsn string) string {
	t.Helper()
	to, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { pool(c, filepath.Join(to.Host, fmt.Sprintf(".s.PGSQL.%d", to.Port))) })
		}
	})
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable", host, port, to.Database)
}

// pool passes a session on to the socket, except one for replication.
func pool(c net.Conn, socket string) {
	defer c.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-4)
	if _, err := io.ReadFull(c, body); err != nil {
		return
	}
	if bytes.Contains(body, []byte("\x00replication\x00")) {
		fields := "SFATAL\x00C08P01\x00Munsupported startup parameter: replication\x00\x00"
		_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte("E"), uint32(4+len(fields))), fields...))
		return
	}
	server, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer server.Close()
	_, _ = server.Write(append(head, body...))
	go func() { _, _ = io.Copy(server, c); server.Close() }()
	_, _ = io.Copy(c, server)
}
