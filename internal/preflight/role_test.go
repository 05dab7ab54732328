package preflight_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// An admin sets up for a role that owns nothing; afterwards that role needs nothing more.
func TestLeastPrivilegeRole(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.Privileges{config.PrivilegesReplica, config.PrivilegesRestorer} {
		// One after the other: the origin belongs to the server, and one session has it at a time.
		t.Run(string(mode), func(t *testing.T) {
			w := newSite(t, logical)
			w.exec(account...)
			role := "least_" + w.region
			w.exec("create role " + role + " login")
			cfg := w.config(role, fmt.Sprintf("postgres: {dsn: %q, admin_dsn: %q}\napply: {privileges: %s}\n", w.as(role), w.dsn, mode))
			w.apply(w.admin, cfg)
			if again := w.apply(w.admin, cfg); again.Pending() != 0 {
				for _, st := range again.Statements {
					if !st.Done {
						t.Errorf("still pending: %s", st.SQL)
					}
				}
			}
			conn := w.connect(role)
			fs := w.check(conn, cfg)
			if errs := fs.Errors(); len(errs) > 0 {
				t.Fatalf("check: %v", errs)
			}
			for _, f := range fs {
				if strings.HasPrefix(f.Code, "no_origin") || f.Code == "no_restorer" {
					t.Errorf("check: %v", f)
				}
			}
			w.applyAs(role, mode)
			// Of two sessions that wait for each other, ours is to be ended: it looks first.
			if _, err := conn.Exec(t.Context(), "set deadlock_timeout = '2ms'; set log_lock_waits = off; reset deadlock_timeout; reset log_lock_waits"); err != nil {
				t.Error(err)
			}
			w.refused(conn, "42501",
				"update pgwaltz.conflict set reason = 'none'", "delete from pgwaltz.conflict", "truncate pgwaltz.conflict", "update pgwaltz.node set region = 'x'",
				"insert into pgwaltz.node select 'x', cluster, token from pgwaltz.node", "delete from pgwaltz.checkpoint", "create table pgwaltz.mine()", "drop table pgwaltz.conflict",
				"create or replace function pgwaltz.forget_conflicts(older_than interval, at_most integer) returns bigint language sql as 'select 1::bigint'")
			if got := w.text("select pgwaltz.forget_conflicts('0', 10)"); got != "0" {
				t.Errorf("%s rows were forgotten", got)
			}
			w.exec("create role stranger_" + w.region + " login")
			w.refused(w.connect("stranger_"+w.region), "42501", "select pgwaltz.forget_conflicts('0', 10)", "select * from pgwaltz.parked")
			w.drop()
		})
	}
}

// refused runs statements that must all fail with the state.
func (w *site) refused(conn *pgx.Conn, state string, statements ...string) {
	w.t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(w.t.Context(), s); pg.Code(err) != state {
			w.t.Errorf("%s: %v, want %s", s, err, state)
		}
	}
}

// applyAs writes as the applier would and looks at the stored stamps.
func (w *site) applyAs(role string, mode config.Privileges) {
	w.t.Helper()
	conn := w.connect(role)
	const id = "11111111-1111-1111-1111-111111111111"
	tx, err := conn.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	statements := []string{"select set_config('pgwaltz.apply', 'on', true)", "select pg_replication_origin_session_setup('pgwaltz_test_us')"}
	if mode == config.PrivilegesReplica {
		statements = append(statements, "set local session_replication_role = replica")
	}
	upsert := func(version, at string) string {
		return fmt.Sprintf(`insert into public.users (uuid, version, updated_at) values ('%s', %s, %s)
			on conflict (uuid) do update set version = excluded.version, updated_at = excluded.updated_at`, id, version, at)
	}
	statements = append(statements, upsert("7", "'2020-01-02 03:04:05.678901Z'"), upsert("40", "'2024-01-02 03:04:05.678901Z'"))
	for _, s := range statements {
		if _, err := tx.Exec(w.t.Context(), s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
	if err := tx.Commit(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := conn.Exec(w.t.Context(), "select pg_replication_origin_session_reset()"); err != nil {
		w.t.Fatal(err)
	}
	stamp := `select version || ' ' || (updated_at at time zone 'UTC') from public.users where uuid = '` + id + `'`
	if got := w.text(stamp); got != "40 2024-01-02 03:04:05.678901" {
		w.t.Errorf("%s: stored stamp %s", mode, got)
	}
	for _, at := range []string{"'infinity'", "'0044-03-15 BC'"} {
		tx, err := conn.Begin(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range append(statements[:1:1], upsert("41", at)) {
			if mode == config.PrivilegesReplica {
				s = "set local session_replication_role = replica; " + s
			}
			if _, err := tx.Exec(w.t.Context(), s); err != nil {
				w.t.Fatalf("%s: %v", s, err)
			}
		}
		if err := tx.Commit(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if got := w.text(`select (version, updated_at) = (41, ` + at + `::timestamptz) from public.users where uuid = '` + id + `'`); got != "true" {
			w.t.Errorf("%s: %s is stored as %s", mode, at, w.text(stamp))
		}
	}
	// For everybody else, and for the role when it does not apply, the application's triggers rule.
	w.exec(`update public.users set version = 100, updated_at = '2000-01-01'`)
	if got := w.text(`select version from public.users where uuid = '` + id + `'`); got != "42" {
		w.t.Errorf("%s: the application's trigger does not work any more: version %s", mode, got)
	}
	tx, err = w.admin.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range []string{"select set_config('pgwaltz.apply', 'on', true)", `update public.users set version = 100`} {
		if _, err := tx.Exec(w.t.Context(), s); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := tx.Commit(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if got := w.text(`select version from public.users where uuid = '` + id + `'`); got != "43" {
		w.t.Errorf("%s: another role passes the application's trigger by: version %s", mode, got)
	}
}

// A role that may not do something is told so, with the statement that helps, before
// anything is created.
func TestSetupRefusesAsAWhole(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account...)
	owner, plain := "owner_"+w.region, "plain_"+w.region
	w.exec("create role "+owner+" login", "create role "+plain+" login replication", "alter table public.users owner to "+owner)
	w.exec(fmt.Sprintf("grant create on database %s to %s", w.text("select current_database()"), owner))
	before := w.dump()
	for _, tt := range []struct {
		name, role, extra, code, what, remedy string
	}{
		{"no REPLICATION", owner, "tables: {include: [public.users]}\napply: {privileges: restorer}\n", "no_replication", "must be superuser or replication role", "alter role \"" + owner + "\" replication"},
		{"no CREATE", plain, "tables: {include: [public.users]}\napply: {privileges: restorer}\n", "no_create not_owner not_owner not_owner", "may not create schemas", "grant create on database"},
		{"no replica role", owner, "tables: {include: [public.users]}\napply: {privileges: replica}\n", "no_replication no_replica_role", "may not set session_replication_role", "grant set on parameter session_replication_role"},
		{"pattern", "postgres", "tables:\n  include:\n    - public.userz\n", "pattern_matches_nothing", `tables.include[0]: "public.userz" matches no table`, "correct the pattern"},
		{"pattern for a schema", "postgres", "tables: {include: [app.*]}\n", "pattern_matches_nothing", "matches no table", "correct the pattern"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := preflight.Apply(t.Context(), w.connect(tt.role), w.config(tt.role, tt.extra), preflight.Talk{})
			var refusal *preflight.Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("error %v", err)
			}
			if got := codes(s.Findings, preflight.Error); got != tt.code {
				t.Errorf("codes %s, want %s", got, tt.code)
			}
			if text := err.Error(); !strings.Contains(text, tt.what) || !strings.Contains(text, tt.remedy) {
				t.Errorf("message %s", text)
			}
			if w.dump() != before {
				t.Error("something was created")
			}
		})
	}
	if got := refusalSource(w, t); got != "line 8" {
		t.Errorf("the pattern's place is given as %q", got)
	}
}

func refusalSource(w *site, t *testing.T) string {
	plan, err := preflight.Plan(t.Context(), w.admin, w.config("postgres", "tables:\n  include:\n    - public.userz\n"))
	if err != nil || len(plan.Findings) == 0 {
		t.Fatal(plan, err)
	}
	return plan.Findings[0].Source
}

// The owner of the tables can do it alone, without superuser, in the ways that are left.
func TestOwnerWithoutSuperuser(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	role := "app_" + w.region
	w.exec("create role "+role+" login replication", fmt.Sprintf("grant create on database %s to %s", w.text("select current_database()"), role))
	w.exec(account[:4]...)
	w.exec("alter table public.users owner to "+role, "alter table public.subscriptions owner to "+role)
	cfg := w.config(role, "")
	conn := w.connect(role)
	s := w.apply(conn, cfg)
	if got := codes(s.Findings, preflight.Warning); got != "no_origin" {
		// Another test of this cluster may have created the origin already.
		if got != "" {
			t.Errorf("warnings %s", got)
		}
	}
	fs := w.check(conn, cfg)
	if errs := fs.Errors(); len(errs) > 0 {
		t.Errorf("check: %v", errs)
	}
	if got := w.text(`select string_agg(tgname, ' ' order by tgname) from pg_trigger where tgrelid = 'public.users'::regclass and not tgisinternal`); got != "!pgwaltz_save trg_users_bump zzzz_pgwaltz_restore" {
		t.Errorf("triggers %s", got)
	}
	if again := w.apply(conn, cfg); again.Pending() != 0 {
		t.Errorf("%d statements are pending after setup", again.Pending())
	}
	w.drop()
}
