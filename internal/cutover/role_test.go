package cutover

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// What is printed for roles, by what the destination has and may.
func TestRoleStatements(t *testing.T) {
	t.Parallel()
	secret, until := "SCRAM-SHA-256$it's", "2030-01-01 00:00:00+00"
	list := []role{
		{name: "postgres", words: []string{"SUPERUSER"}, limit: -1},
		{name: "my app", words: []string{"NOSUPERUSER", "INHERIT", "LOGIN", "NOREPLICATION", "NOBYPASSRLS"}, limit: 5, password: &secret, until: &until, settings: []string{`search_path="$user", public`, "work_mem=5MB"}, here: []string{"auto_explain.log_format=json"}},
		{name: "old", words: []string{"NOSUPERUSER", "LOGIN"}, limit: -1},
		{name: "rds_superuser", words: []string{"NOSUPERUSER"}, limit: -1},
	}
	members := []member{{of: "old", name: "my app", admin: true}, {of: "rds_superuser", name: "my app"}, {of: "pg_monitor", name: "rds_superuser"}, {of: "a", name: "b"}}
	has := map[string]bool{"old": true, "postgres": true}
	for _, c := range []struct {
		name string
		o    Roles
		has  map[string]bool
		to   pg.System
		want []string
	}{
		{"as they are", Roles{}, has, pg.System{Database: "shop", Version: 150000}, []string{
			`create role "my app"`,
			`alter role "my app" with NOSUPERUSER INHERIT LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$it''s' VALID UNTIL '2030-01-01 00:00:00+00'`,
			`alter role "my app" set "search_path" to '$user', 'public'`, `alter role "my app" set "work_mem" to '5MB'`,
			`alter role "my app" in database "shop" set "auto_explain"."log_format" to 'json'`,
			`create role "rds_superuser"`, `alter role "rds_superuser" with NOSUPERUSER`,
			`grant "old" to "my app" with admin option`, `grant "rds_superuser" to "my app"`, `grant "pg_monitor" to "rds_superuser"`,
		}},
		{"to a managed server", Roles{RDS: true}, map[string]bool{"old": true, "postgres": true, "my app": true, "rds_superuser": true}, pg.System{Database: "shop"}, nil},
		{"all of them, to a managed server", Roles{RDS: true, All: true}, map[string]bool{"old": true, "postgres": true, "my app": true, "rds_superuser": true}, pg.System{Database: "shop"}, []string{
			`alter role "my app" with INHERIT LOGIN CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$it''s' VALID UNTIL '2030-01-01 00:00:00+00'`,
			`alter role "my app" set "search_path" to '$user', 'public'`, `alter role "my app" set "work_mem" to '5MB'`,
			`alter role "my app" in database "shop" set "auto_explain"."log_format" to 'json'`,
			`alter role "old" with LOGIN`,
			`grant "old" to "my app" with admin option`, `grant "rds_superuser" to "my app"`,
		}},
	} {
		if got := roleStatements(list, members, c.has, c.o, "postgres", c.to); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
}
