package preflight_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// has looks for a finding of the code whose text and remedy hold the given parts.
func has(t *testing.T, fs preflight.Findings, severity preflight.Severity, code, what, remedy string) {
	t.Helper()
	for _, f := range fs {
		if f.Severity == severity && f.Code == code && strings.Contains(f.What, what) && strings.Contains(f.Remedy, remedy) {
			return
		}
	}
	t.Errorf("no %s %s with %q and %q in:\n%v", severity, code, what, remedy, fs)
}

func TestCheckOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	cfg := w.config("postgres", "tables: {include: [\"public.*\"]}\n")
	before := w.dump()
	fs := w.check(w.admin, cfg)
	if got := codes(fs, preflight.Error); got != "schema_missing publication_missing slot_missing" {
		t.Errorf("errors %s", got)
	}
	has(t, fs, preflight.Warning, "pattern_matches_nothing", `"public.*" matches no table`, "create the table first")
	if w.dump() != before {
		t.Error("a check changes the database")
	}
}

// What SL-11 of the acceptance cases names: one line that says what and how to mend it.
func TestServerMistakes(t *testing.T) {
	t.Parallel()
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		w := newSite(t, replica)
		w.exec(`create table public.a (id int primary key)`)
		cfg := w.config("postgres", "")
		before := w.dump()
		_, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{})
		if err == nil || !strings.Contains(err.Error(), "wal_level is replica, and must be logical; alter system set wal_level = logical, then restart PostgreSQL") {
			t.Errorf("setup: %v", err)
		}
		if w.dump() != before {
			t.Error("something was created")
		}
		has(t, w.check(w.admin, cfg), preflight.Error, "wal_level", "must be logical", "alter system set wal_level")
	})
	t.Run("no free slot, no free walsender", func(t *testing.T) {
		t.Parallel()
		w := newSite(t, small)
		w.exec(`create table public.a (id int primary key)`, `select pg_create_logical_replication_slot('other', 'pgoutput')`)
		defer w.exec(`select pg_drop_replication_slot('other')`)
		role := "rep_" + w.region
		w.exec("create role " + role + " login replication")
		repl, err := pg.ConnectReplication(t.Context(), w.dsn, pg.Options{Region: "x", Role: "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer repl.Close(t.Context())
		cfg := w.config("postgres", "")
		before := w.dump()
		_, err = preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{})
		for _, want := range []string{"all 1 replication slots are in use", "max_replication_slots = 5 and restart", "all 1 walsenders are in use", "max_wal_senders = 5 and restart"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("setup lacks %q: %v", want, err)
			}
		}
		if w.dump() != before {
			t.Error("something was created")
		}
		// A role without privileges sees it too.
		fs := w.check(w.connect(role), w.config(role, ""))
		has(t, fs, preflight.Error, "no_free_slot", "all 1", "max_replication_slots")
		has(t, fs, preflight.Error, "no_free_walsender", "all 1", "max_wal_senders")
	})
}

func TestSlotMistakes(t *testing.T) {
	t.Parallel()
	w, other := newSite(t, logical), newSite(t, logical)
	w.exec(`create table public.a (id int primary key, version int not null default 0, updated_at timestamptz not null default now())`)
	cfg := w.config("postgres", "")
	slot := "pgwaltz_test_" + w.region
	for _, tt := range []struct{ name, sql, code, what string }{
		{"another database", `select pg_create_logical_replication_slot('` + slot + `', 'pgoutput')`, "slot_database",
			"was not created in database"},
		{"another plugin", `select pg_create_logical_replication_slot('` + slot + `', 'test_decoding')`, "slot_plugin", "has plugin test_decoding"},
		{"physical", `select pg_create_physical_replication_slot('` + slot + `')`, "slot_type", "physical"},
	} {
		in := w
		if tt.code == "slot_database" {
			in = other
		}
		in.exec(tt.sql)
		before := w.dump()
		_, err := preflight.Apply(t.Context(), w.admin, cfg, preflight.Talk{})
		if err == nil || !strings.Contains(err.Error(), tt.what) || !strings.Contains(err.Error(), "postgres.slot") {
			t.Errorf("%s: setup: %v", tt.name, err)
		}
		if w.dump() != before {
			t.Errorf("%s: something was created", tt.name)
		}
		has(t, w.check(w.admin, cfg), preflight.Error, tt.code, tt.what, "choose another name with postgres.slot")
		for _, f := range w.check(w.admin, cfg) {
			if f.Code == tt.code && strings.Contains(f.Remedy, "drop") {
				t.Errorf("%s: the remedy drops what belongs to somebody else: %s", tt.name, f.Remedy)
			}
		}
		w.drop()
	}
}

func TestCheckFindsWhatChangedSinceSetup(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account...)
	cfg := w.config("postgres", "tables: {include: [public.users, \"public.*\"], rules: [{match: public.stepped, version: rev}]}\n")
	w.apply(w.admin, cfg)
	defer w.drop()
	w.exec(
		`alter publication pgwaltz drop table public.users`,
		`alter publication pgwaltz set (publish = 'insert, update')`,
		`alter publication pgwaltz add table public.r4`,
		`create table public.late (id serial primary key, version text, updated_at timestamptz)`,
		`create domain public.revision as numeric(12,2)`, `create domain public.rev2 as public.revision`, `create domain public.moment as timestamptz`, `create domain public.word as text`,
		`create table public.domains (id uuid primary key, version public.rev2 not null, updated_at public.moment not null)`,
		`create table public.words (id uuid primary key, version public.word, updated_at public.word)`,
		`create table public.made (id uuid primary key, at timestamptz not null, version bigint not null generated always as (extract(epoch from (at at time zone 'UTC'))) stored, updated_at timestamptz not null)`,
		`create table public.ruled (id uuid primary key)`, `create rule note as on insert to public.ruled do also nothing`, `alter table public.ruled enable always rule note`,
		`create table public.stepped (id int generated by default as identity (increment by 2) primary key)`,
		`create sequence public."Seq one"`, `create sequence public.two increment by 2`,
		`create table public.drawn (id int primary key default nextval('public."Seq one"'))`, `create table public.drawn2 (id int primary key default 1 + nextval('public.two'))`,
		`create sequence public.late_seq`, `create table public.drawn3 (id int primary key default nextval('late_seq'::text))`, `create table public.drawn4 (id int primary key default nextval('public.two'::text))`,
		`create table public.part2 partition of public.parts for values from (10) to (20)`,
		`update pgwaltz.node set region = 'elsewhere'`,
		`insert into pgwaltz.stream (region, incarnation, system_id) values ('`+w.region+`', 1, '4711')`,
		`comment on schema pgwaltz is 'other'`,
	)
	fs := w.check(w.admin, cfg)
	has(t, fs, preflight.Error, "publication_tables", "public.users", `alter publication "pgwaltz" add table`)
	has(t, fs, preflight.Error, "publication_kinds", "does not publish delete", "set (publish")
	has(t, fs, preflight.Warning, "published_without_identity", "public.r4", "drop table")
	has(t, fs, preflight.Error, "stamp_type", "version of public.late is of type text", "")
	has(t, fs, preflight.Warning, "stamp_nullable", "updated_at of public.late", "set not null")
	has(t, fs, preflight.Warning, "stamp_fraction", "version of public.domains", "type numeric(12,0)")
	has(t, fs, preflight.Error, "stamp_type", "version of public.words is of type public.word", "")
	has(t, fs, preflight.Error, "stamp_type", "updated_at of public.words is of type public.word", "")
	has(t, fs, preflight.Warning, "stamp_generated", "column version of public.made", "rule")
	has(t, fs, preflight.Warning, "stamp_missing", `"rev" as version of public.stepped`, "correct the rule")
	has(t, fs, preflight.Warning, "rule", "rule note of public.ruled", `enable rule "note"`)
	has(t, fs, preflight.Warning, "shared_sequence", "key id of public.late", "alter sequence public.late_id_seq increment by 2")
	has(t, fs, preflight.Warning, "shared_sequence", "key id of public.drawn is", `alter sequence public."Seq one" increment by 2`)
	has(t, fs, preflight.Warning, "shared_sequence", "key id of public.drawn3", `alter sequence public.late_seq increment by 2`)
	has(t, fs, preflight.Warning, "no_stamps", "public.byindex", "add the columns")
	has(t, fs, preflight.Warning, "identity", "public.late", "replica identity full")
	has(t, fs, preflight.Warning, "no_bump_trigger", "version of public.parts", "BEFORE UPDATE")
	has(t, fs, preflight.Error, "partition_identity", "public.part2", "setup")
	has(t, fs, preflight.Error, "wrong_node", `region "elsewhere" of cluster "test"`, "postgres.dsn")
	has(t, fs, preflight.Error, "wrong_server", "4711, and this server has "+w.text("select system_identifier from pg_control_system()"), "4711")
	has(t, fs, preflight.Error, "schema_version", "has version 0", "setup")
	has(t, fs, preflight.Warning, "superuser", "is a superuser", "postgres.admin_dsn")
	asked := *cfg
	asked.Postgres.UnboundedWAL = false
	has(t, w.check(w.admin, &asked), preflight.Error, "wal_unbounded", "max_slot_wal_keep_size", "alter system set")
	for _, f := range fs {
		if f.Code == "stamp_type" && strings.Contains(f.What, "domains") {
			t.Errorf("a domain over a readable type: %v", f)
		}
		if f.Code == "shared_sequence" && (strings.Contains(f.What, "stepped") || strings.Contains(f.What, "drawn2") || strings.Contains(f.What, "drawn4")) {
			t.Errorf("numbered in steps, and reported: %v", f)
		}
		if f.Code == "no_bump_trigger" && strings.Contains(f.What, "users") {
			t.Errorf("users has a trigger: %v", f)
		}
	}
}

func TestForeignPublication(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account...)
	w.exec(`create publication mine for table public.users (uuid, email), public.byindex where (b > 0)`)
	cfg := w.config("postgres", fmt.Sprintf("postgres: {dsn: %q, publication: mine}\nreplica_identity: keep\ntables: {include: [\"public.users\", \"public.subscriptions\"]}\n", w.dsn))
	fs := w.check(w.admin, cfg)
	has(t, fs, preflight.Error, "column_list", `leaves out "version"`, "add the column")
	has(t, fs, preflight.Error, "column_list", `leaves out "updated_at"`, "add the column")
	has(t, fs, preflight.Warning, "row_filter", "public.byindex", "")
	has(t, fs, preflight.Warning, "published_not_selected", "public.byindex", "tables.include")
	has(t, fs, preflight.Error, "publication_tables", "public.subscriptions", "setup")
	w.apply(w.admin, cfg)
	defer w.drop()
	if got := w.text(`select string_agg(t, ' ' order by t) from (select tablename from pg_publication_tables where pubname = 'mine') x(t)`); got != "byindex subscriptions users" {
		t.Errorf("setup made of the publication: %s", got)
	}
	if got := w.text(`select relreplident from pg_class where oid = 'public.users'::regclass`); got != "d" {
		t.Errorf("replica_identity keep, and the identity became %s", got)
	}
}

func TestRunningRoleLacksEverything(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account[:3]...)
	w.exec(`alter table public.users enable row level security`)
	w.apply(w.admin, w.config("postgres", ""))
	defer w.drop()
	role := "bare_" + w.region
	w.exec("create role " + role + " login")
	cfg := w.config(role, "")
	fs := w.check(w.connect(role), cfg)
	if got := codes(fs, preflight.Error); got != "schema_privilege no_replication table_privilege row_security no_restorer" && got != "schema_privilege no_replication table_privilege no_restorer" {
		t.Errorf("errors %s", got)
	}
	has(t, fs, preflight.Error, "schema_privilege", "may not use schema pgwaltz", "grant usage on schema pgwaltz to \""+role+"\"")
	has(t, fs, preflight.Error, "table_privilege", "lacks select, insert, update, delete on public.users", "grant select, insert, update, delete on table \"public\".\"users\" to \""+role+"\"")
	has(t, fs, preflight.Error, "no_restorer", "session_replication_role", "grant set on parameter session_replication_role")
	has(t, fs, preflight.Error, "row_security", "public.users", "bypassrls")
	has(t, fs, preflight.Warning, "no_origins", "message instead", "pg_replication_origin_session_setup(text)")
	// The remedies are valid as they stand.
	for _, f := range fs.Errors() {
		if sql, ok := strings.CutPrefix(f.Remedy, "grant "); ok {
			w.exec("grant " + sql)
		}
		if _, sql, ok := strings.Cut(f.Remedy, "as a superuser: "); ok {
			w.exec(strings.Split(sql, ";")[0])
		}
	}
	w.exec(`grant select, insert, update, delete on all tables in schema pgwaltz to "` + role + `"`)
	if errs := w.check(w.connect(role), cfg).Errors(); len(errs) > 0 {
		t.Errorf("after all remedies: %v", errs)
	}
}

func TestDoubleFeed(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(`create table public.lp7 (id int primary key, v int)`)
	w.exec(`create subscription ` + w.region + `_sub connection '` + w.dsn + `' publication nothing with (connect = false, slot_name = none, enabled = false)`)
	// A subscription that is enabled needs a server; its catalog row is enough here.
	w.exec(`update pg_subscription set subenabled = true where subname = '`+w.region+`_sub'`,
		`insert into pg_subscription_rel (srsubid, srrelid, srsubstate) select oid, 'public.lp7'::regclass, 'r' from pg_subscription where subname = '`+w.region+`_sub'`)
	fs := w.check(w.admin, w.config("postgres", ""))
	w.exec(`update pg_subscription set subenabled = false where subname = '`+w.region+`_sub'`, `drop subscription `+w.region+`_sub`)
	has(t, fs, preflight.Warning, "double_feed", "public.lp7", "disable")
}
