package preflight_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// What somebody else has planted in our schema stops setup, check and run, before anything of
// it is used.
func TestPlantedObjects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after []string // setup; as a role that may create in the database
		what          string
	}{
		"a schema":               {before: []string{"create schema pgwaltz"}, what: "schema pgwaltz belongs to"},
		"a table in ours":        {after: []string{"grant create, usage on schema pgwaltz to STRANGER", "set role STRANGER", "create table pgwaltz.extra ()", "reset role", "revoke create on schema pgwaltz from STRANGER"}, what: "pgwaltz.extra belongs to"},
		"a function in ours":     {after: []string{"grant create, usage on schema pgwaltz to STRANGER", "set role STRANGER", "create function pgwaltz.forget_conflicts() returns int language sql as 'select 1'", "reset role", "revoke create on schema pgwaltz from STRANGER"}, what: "function pgwaltz.forget_conflicts belongs to"},
		"the right to create":    {after: []string{"grant create on schema pgwaltz to public"}, what: "the right to create in schema pgwaltz belongs to \"everybody\""},
		"a trigger":              {after: []string{"create function public.evil() returns trigger language plpgsql as 'begin return new; end'", "create trigger evil before insert on pgwaltz.conflict for each row execute function public.evil()"}, what: "trigger evil on pgwaltz.conflict"},
		"a rule":                 {after: []string{"create rule evil as on insert to pgwaltz.conflict do instead nothing"}, what: "rule evil on pgwaltz.conflict"},
		"row security":           {after: []string{"alter table pgwaltz.checkpoint enable row level security"}, what: "row security on pgwaltz.checkpoint"},
		"a table given away":     {after: []string{"grant create, usage on schema pgwaltz to STRANGER", "alter table pgwaltz.node owner to STRANGER", "revoke create on schema pgwaltz from STRANGER"}, what: "pgwaltz.node belongs to"},
		"a view instead of ours": {after: []string{"alter table pgwaltz.parked rename to kept", "create view pgwaltz.parked as select * from pgwaltz.kept"}, what: "pgwaltz.parked, which should be a table"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSite(t, logical)
			stranger := "stranger_" + w.region
			w.exec("create role "+stranger+" login", "grant create on database "+w.text("select current_database()")+" to "+stranger, "create table public.a (id int primary key)")
			cfg := w.config("postgres", "")
			if tt.before == nil {
				w.apply(w.admin, cfg)
				for _, s := range tt.after {
					w.exec(strings.ReplaceAll(s, "STRANGER", stranger))
				}
			} else {
				c := w.connect(stranger)
				for _, s := range tt.before {
					if _, err := c.Exec(t.Context(), s); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := w.dump()
			_, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{})
			var refusal *preflight.Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), tt.what) || !strings.Contains(err.Error(), "find out who made it") {
				t.Errorf("setup: %v", err)
			}
			if w.dump() != before {
				t.Error("something was created")
			}
			has(t, w.check(w.admin, cfg), preflight.Error, "planted", tt.what, "find out who made it")
			w.drop()
		})
	}
}
