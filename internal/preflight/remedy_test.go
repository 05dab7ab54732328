package preflight_test

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// What check finds goes when its remedy is typed as it stands there.
func TestRemediesAreFollowed(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(`create table public.a (id int primary key, v text, version int not null default 0, updated_at timestamptz not null default now())`,
		`create table public.parts (id int primary key, v text) partition by range (id)`,
		`create table public.part1 partition of public.parts for values from (0) to (10)`,
		`create function public.note() returns trigger language plpgsql as $$ begin return new; end $$`,
		`create trigger note after insert on public.a for each row execute function public.note()`,
		`create trigger before before insert on public.a for each row execute function public.note()`)
	setup := func(cfg *config.Config) {
		t.Helper()
		if _, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{}); err != nil {
			t.Fatal(err)
		}
	}
	cfg := w.config("postgres", "")
	setup(cfg)
	longer := w.config("postgres", "audit: {retention: 1234h}\n")
	for _, tt := range []struct {
		code string
		sql  string
		cfg  *config.Config
	}{
		{"after_trigger", "alter table public.a enable always trigger note", cfg},
		{"always_trigger", "alter table public.a enable always trigger before", cfg},
		{"publication_partitions", "alter publication " + cfg.Postgres.Publication + " set (publish_via_partition_root = false)", cfg},
		{"partition_unlogged", "alter table public.part1 set unlogged", cfg},
		{"node_missing", "delete from pgwaltz.node", cfg},
		{"audit_retention", "select 1", longer},
	} {
		w.exec(tt.sql)
		remedy := ""
		for _, f := range w.check(w.admin, tt.cfg) {
			if f.Code == tt.code {
				remedy = f.Remedy
			}
		}
		switch {
		case remedy == "":
			t.Errorf("%s is not found", tt.code)
			continue
		case strings.HasPrefix(remedy, "pgwaltz setup"), strings.Contains(remedy, "pgwaltz setup"):
			setup(tt.cfg)
		default:
			w.exec(remedy)
		}
		for _, f := range w.check(w.admin, tt.cfg) {
			if f.Code == tt.code {
				t.Errorf("%s is still there after %q: %s", tt.code, remedy, f.What)
			}
		}
	}
	w.exec("comment on schema pgwaltz is 'pgwaltz schema version 99'")
	if _, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{}); err == nil || !strings.Contains(err.Error(), "use the newer program") {
		t.Errorf("setup of an older program: %v", err)
	}
	has(t, w.check(w.admin, cfg), preflight.Error, "schema_version", "has version 99", "")
}
