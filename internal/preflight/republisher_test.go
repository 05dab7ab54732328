package preflight_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// The event trigger works with a superuser's rights, for the statements of everybody. Who owns schema
// pgwaltz, because he ran setup by himself at first, does not get these rights by it.
func TestRepublisherLendsNoRights(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]struct{ before, after []string }{
		"function": {
			before: []string{"create function pgwaltz.republish() returns event_trigger language plpgsql as 'begin end'"},
			after:  []string{"create or replace function pgwaltz.republish() returns event_trigger language plpgsql as 'begin execute ''alter role ROLE superuser''; end'"},
		},
		"names are a view": {
			after: []string{
				"create function public.evil() returns oid language plpgsql as 'begin execute ''alter role ROLE superuser''; return 1; end'",
				"alter table pgwaltz.name rename to kept", "create view pgwaltz.name as select 'app'::text as schema_name, 't'::text as table_name, public.evil() as published, false as identity_full",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSite(t, logical)
			role := "owner_" + w.region
			w.exec("create role "+role+" login replication", "grant create on database "+w.text("select current_database()")+" to "+role,
				"create schema app authorization "+role, "grant create on schema public to "+role)
			c := w.connect(role)
			run := func(may bool, statements []string) {
				t.Helper()
				for _, s := range statements {
					if _, err := c.Exec(t.Context(), strings.ReplaceAll(s, "ROLE", role)); err != nil && may {
						t.Fatalf("%s: %v", s, err)
					}
				}
			}
			run(true, []string{"create table app.t (id int primary key)"})
			w.apply(c, w.config(role, ""))
			run(true, plant.before)
			w.apply(w.admin, w.config(role, fmt.Sprintf("postgres: {dsn: %q, admin_dsn: %q}\n", w.as(role), w.dsn)))
			run(false, plant.after)
			pgtest.Exec(t, w.connect("postgres"), "drop table app.t", "create table app.t (id int primary key)", "alter table app.t add v text")
			if got := w.text("select rolsuper from pg_roles where rolname = '" + role + "'"); got != "false" {
				t.Errorf("%s is a superuser", role)
			}
			w.drop()
		})
	}
}
