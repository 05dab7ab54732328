package cutover

import (
	"os"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// What the settings of a role become, however their text was written.
func TestAssign(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ setting, want string }{
		{`search_path="$user", public`, `"search_path" to '$user', 'public'`},
		{`search_path=Mine,"Yours" , "a ""b"", c"`, `"search_path" to 'mine', 'Yours', 'a "b", c'`},
		{`search_path=`, `"search_path" to ''`},
		{`search_path=""`, `"search_path" to ''`},
		{`search_path=x;alter/**/role/**/m/**/superuser;--`, `"search_path" to 'x;alter/**/role/**/m/**/superuser;--'`},
		{`search_path="x", public; drop table t`, `"search_path" to '"x", public; drop table t'`},
		{`search_path="open, public`, `"search_path" to '"open, public'`},
		{`search_path=it's,b\c`, `"search_path" to 'it''s',  E'b\\c'`},
		{`local_preload_libraries=Lib, "$libdir/plugins/x"`, `"local_preload_libraries" to 'Lib', '$libdir/plugins/x'`},
		{`DateStyle=ISO, MDY`, `"DateStyle" to 'ISO, MDY'`},
		{`a.b=x';drop`, `"a"."b" to 'x'';drop'`},
	} {
		if got := assign(c.setting); got != c.want {
			t.Errorf("%s: %s, want %s", c.setting, got, c.want)
		}
	}
}

// A role that chooses its settings itself does not become another one by them, printed or run; each setting comes as it was.
func TestRolesAreNoOthersSQL(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	dsn := server.Database(t)
	root := pgtest.Connect(t, dsn)
	pgtest.Exec(t, root, `create role mallory login; create role honest; alter role honest set search_path = "$user", "My ""own"", one", Public; alter role honest set "a.b" = 'it''s; --'`)
	mallory := pgtest.Connect(t, pgtest.As(dsn, "mallory"))
	pgtest.Exec(t, mallory, `select set_config('search_path', 'x;alter/**/role/**/mallory/**/superuser;--', false)`, `alter role mallory set search_path from current`,
		`select set_config('search_path', 'y,"x;alter/**/role/**/mallory/**/superuser;--"', false)`, `alter role mallory in database "`+root.Config().Database+`" set search_path from current`)
	const settings = `select string_agg(setrole::regrole || ' ' || setconfig::text, ' ' order by setrole::regrole::text, setdatabase) from pg_db_role_setting where setrole = 'honest'::regrole`
	var before, after string
	var super bool
	if err := root.QueryRow(t.Context(), settings).Scan(&before); err != nil {
		t.Fatal(err)
	}
	end := &End{Region: "us", Conn: root, Sys: pg.System{User: "postgres", Database: root.Config().Database}}
	e := &Ends{Source: end, Destination: end}
	list, secret, err := e.Roles(t.Context(), Roles{All: true, Passwords: true})
	if err != nil || !secret {
		t.Fatal(secret, err)
	}
	for range 2 {
		if err := e.RunAll(t.Context(), list, secret); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Exec(t, root, strings.Join(list, ";\n")) // the script
	if err := root.QueryRow(t.Context(), `select (`+settings+`), (select bool_or(rolsuper) from pg_roles where rolname in ('mallory', 'honest'))`).Scan(&after, &super); err != nil {
		t.Fatal(err)
	}
	if super || after != before {
		t.Errorf("superuser %t; settings were %s and are %s", super, before, after)
	}
	if err := e.RunAll(t.Context(), []string{"create role one; alter role mallory superuser"}, false); pg.Code(err) != "42601" {
		t.Errorf("two statements in one: %v", err)
	}
}

// What the server keeps of passwords does not come into the destination's log, neither of statements that are run nor of one that fails; the log
// goes on behind it.
func TestPasswordsAreNotLogged(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t, "log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = error", "debug_print_parse = on")
	root := pgtest.Connect(t, server.Database(t))
	e := &Ends{Destination: &End{Region: "us", Conn: root}}
	pgtest.Exec(t, root, `create role app login`)
	const verifier = `SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$`
	const key = `AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=`
	password := pg.Literal(verifier + key + ":" + key)
	if err := e.RunAll(t.Context(), []string{"alter role app with PASSWORD " + password}, true); err != nil {
		t.Fatal(err)
	}
	if err := e.RunAll(t.Context(), []string{"alter role nobody with PASSWORD " + password}, true); pg.Code(err) != "42704" || strings.Contains(err.Error(), verifier) {
		t.Fatal(err)
	}
	if err := e.RunAll(t.Context(), []string{"create role behind"}, false); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(server.Cluster(t).Log())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), key) || !strings.Contains(string(text), "create role behind") {
		t.Errorf("the server's log:\n%s", text)
	}
}
