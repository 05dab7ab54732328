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
	w.ok("roles", "--run")
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

	// The schema, by the script of the document, into an empty database.
	document, err := os.ReadFile("../../docs/cutover.md")
	w.must(err)
	_, text, _ = strings.Cut(string(document), "```sh\n")
	text, _, _ = strings.Cut(text, "```")
	w.must(os.WriteFile(filepath.Join(w.a.Sidecar.Home, "schema.sh"), []byte(text), 0o644))
	w.sql(w.b, `create database empty`)
	empty := w.id(w.b)
	empty = empty[:strings.Index(empty, "/")] + "/empty"
	w.a.Sidecar.Set("peers", []any{map[string]any{"region": "b", "dsn": w.b.Cluster.DSN("empty")}})
	bin, err := harness.FindBinaries()
	w.must(err)
	w.a.Sidecar.Setenv("PATH", bin.Dir+":"+os.Getenv("PATH"))
	if code, text := w.run("", "exec", "--source", w.id(w.a), "--destination", empty, "--", "sh", "schema.sh"); code != 0 {
		t.Fatalf("schema.sh: code %d: %s", code, text)
	}
	const schema = `select string_agg(c.oid::regclass || ' ' || pg_get_userbyid(c.relowner) || ' ' || coalesce(c.relacl::text, ''), E'\n' order by c.oid::regclass::text) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'other')`
	there, err := w.b.Cluster.PSQL(t.Context(), "empty", schema)
	if a := w.sql(w.a, schema); err != nil || strings.TrimSpace(there) != a {
		t.Errorf("%v: the schema is\n%s\nhere and\n%s\nthere", err, a, there)
	}
}
