package cutover

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Roles and extensions of the source are made at the destination, and a command gets the connections of the databases that it is meant for.
func TestBeside(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "beside")
	w.sql(w.a, `create role newcomer login password 'it''s secret' connection limit 3 valid until '2040-01-01' in role clerks; alter role newcomer set search_path = "$user", other;
alter role newcomer in database beside set work_mem = '7MB'; grant newcomer to boss with admin option; create schema ext; create extension citext schema ext`)
	const role = `select rolname || rolcanlogin || rolconnlimit || rolvaliduntil || rolpassword || (select string_agg(setconfig::text, ' ' order by setdatabase) from pg_db_role_setting s where s.setrole = a.oid) ||
(select string_agg(m.roleid::regrole || ' ' || m.member::regrole || m.admin_option, ' ' order by m.roleid::regrole::text) from pg_auth_members m where a.oid in (m.roleid, m.member)) from pg_authid a where rolname = 'newcomer'`
	text := w.ok("roles", "--no-passwords")
	if !strings.Contains(text, `create role "newcomer";`) || strings.Contains(text, "SCRAM") || strings.Contains(text, `create role "app"`) {
		t.Errorf("roles: %s", text)
	}
	if got := w.sql(w.b, role); got != "" {
		t.Errorf("printing made the role: %s", got)
	}
	w.ok(w.line("roles")...)
	if a, b := w.sql(w.a, role), w.sql(w.b, role); a != b || a == "" {
		t.Errorf("the role is %q here and %q there", a, b)
	}
	w.ok("roles", "--run")
	w.ok("roles", "--run", "--all")
	w.ok("extensions", "--run")
	w.ok("extensions", "--run")
	if got := w.sql(w.b, `select n.nspname from pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname = 'citext'`); got != "ext" {
		t.Errorf("citext is in schema %q", got)
	}
	echo := []string{"--", "sh", "-c", `echo "$PGWALTZ_SOURCE_PORT $PGWALTZ_DESTINATION_PORT $PGWALTZ_SOURCE_DATABASE"; exit 33`}
	code, text := w.run("", append([]string{"exec", "--source", w.id(w.a), "--destination", w.id(w.b)}, echo...)...)
	if want := fmt.Sprintf("%d %d beside\n", w.a.Cluster.Port, w.b.Cluster.Port); code != 33 || text != want {
		t.Errorf("exec: code %d: %q, want %q", code, text, want)
	}
	for _, ids := range [][]string{{"--source", w.id(w.b), "--destination", w.id(w.a)}, {"--source", w.id(w.a)}} {
		if code, text := w.run("", append(append([]string{"exec"}, ids...), echo...)...); code != 4 || strings.Contains(text, fmt.Sprint(w.b.Cluster.Port)) {
			t.Errorf("exec %v: code %d: %s", ids, code, text)
		}
	}

	if text := w.ok("analyze"); !strings.Contains(text, "Tables of b: as the server is set.") {
		t.Errorf("analyze: %s", text)
	}
	w.within("the tables of b to have statistics", func() bool {
		return w.sql(w.b, `select count(*) from pg_stat_user_tables where schemaname in ('public', 'other') and last_analyze is null`) == "0"
	})
	w.schemaCopied()
}

// schemaCopied copies the schema of a into an empty database of b: all of it or nothing, and again without harm.
func (w *walk) schemaCopied() {
	w.Helper()
	w.sql(w.b, `create database empty`)
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN("empty")}})
	there := func(sql string) string {
		w.Helper()
		out, err := w.b.Cluster.PSQL(w.Context(), "empty", sql)
		w.must(err)
		return strings.TrimSpace(out)
	}
	const made = `select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'other')`
	const schema = `select string_agg(c.oid::regclass || ' ' || pg_get_userbyid(c.relowner) || ' ' || coalesce(c.relacl::text, ''), E'\n' order by c.oid::regclass::text) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'other')`
	same := func() {
		w.Helper()
		if a, b := w.sql(w.a, schema), there(schema); a != b {
			w.Errorf("the schema is\n%s\nhere and\n%s\nthere", a, b)
		}
	}
	refused := func(says string, more ...string) {
		w.Helper()
		if code, text := w.run("", append([]string{"schema", "copy"}, more...)...); code != 4 || !strings.Contains(text, says) {
			w.Errorf("schema copy %v: code %d: %s, want %q", more, code, text, says)
		}
	}
	old := w.T.TempDir()
	for _, name := range []string{"pg_dump", "pg_restore"} {
		w.must(os.WriteFile(filepath.Join(old, name), []byte("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n"), 0o755))
	}
	refused("pg_dump reads no server that is newer than itself; found: 9 in "+old, "--bin", old)
	bin, err := harness.FindBinaries()
	w.must(err)
	if _, err := os.Stat(filepath.Join(bin.Dir, "pg_dump")); err != nil { // these servers come without their programs
		w.ok(w.line("extensions")...)
		if code, _ := w.run("", "schema", "copy"); code == 0 { // but the machine has those of a later version
			same()
			return
		}
		refused("pg_dump reads no server that is newer")
		return
	}
	w.sql(w.a, "create table \"x\n; create role planted superuser; --\" ()")
	refused("line breaks", "--dry-run")
	w.sql(w.a, "drop table \"x\n; create role planted superuser; --\"")
	w.sql(w.a, `create role late; grant select on item to late`)
	refused("pgwaltz cutover roles --run")
	w.ok("schema", "copy", "--dry-run", "--no-privileges")
	w.sql(w.a, `drop owned by late; drop role late`)
	text := w.ok("schema", "copy", "--dry-run", "--bin", bin.Dir)
	if !strings.Contains(text, "CREATE TABLE public.item") || !strings.Contains(text, "OWNER TO keeper") || strings.Contains(text, "pgwaltz_") || strings.Contains(text, "pgwaltz.") {
		w.Errorf("--dry-run: %s", text)
	}
	if code, text := w.run("cutover.schema:kill", "schema", "copy"); code == 0 {
		w.Errorf("not killed: %s", text)
	}
	if got := there(made); got != "0" {
		w.Errorf("%s relations are there, and nothing was to be made", got)
	}
	w.ok(w.line("extensions")...) // makes a schema as well
	w.ok(w.line("schema copy")...)
	same()
	if text := w.ok("schema", "copy"); !strings.Contains(text, "already") {
		w.Errorf("again: %s", text)
	}
	there(`alter table item add more int; insert into item (id, n) values (1, 1)`)
	refused("not the source's schema")
	if got := there(`select count(*) from item`); got != "1" {
		w.Errorf("%s rows are left", got)
	}
}
