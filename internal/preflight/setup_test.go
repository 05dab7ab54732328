package preflight_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// account is a schema with everything that setup has to tell apart.
var account = []string{
	`create table public.users (uuid uuid primary key default gen_random_uuid(), email text, password text, version bigint not null default 0,
		updated_at timestamptz not null default now(), verified boolean generated always as (email is not null) stored)`,
	`create function public.bump() returns trigger language plpgsql as 'begin new.version := coalesce(old.version, 0) + 1; new.updated_at := now(); return new; end'`,
	`create trigger trg_users_bump before update on public.users for each row execute function public.bump()`,
	`create table public.subscriptions (id uuid primary key, user_uuid uuid references public.users on delete cascade, updated_at timestamptz not null default now())`,
	`create table public.r4 (a int)`, `create table public.r4b (a int primary key)`, `alter table public.r4b replica identity nothing`,
	`create table public.keyless (a int)`, `alter table public.keyless replica identity full`,
	`create table public.byindex (a int primary key, b int not null unique)`, `alter table public.byindex replica identity using index byindex_b_key`,
	`create unlogged table public.scratch (a int primary key)`,
	`create table public.parts (a int primary key, version bigint not null default 0, updated_at timestamptz not null default now()) partition by range (a)`,
	`create table public.part1 partition of public.parts for values from (0) to (10)`,
	`create schema "Odd ""one"`, `create table "Odd ""one"."T'x" ("Key" int primary key)`,
}

func TestSetupIsRepeatable(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account...)
	cfg := w.config("postgres", "")
	before := w.dump()
	plan, err := preflight.Plan(t.Context(), w.admin, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var script bytes.Buffer
	plan.Print(&script)
	if w.dump() != before {
		t.Fatal("a plan changes the database")
	}
	first := w.apply(w.admin, cfg)
	if len(first.Statements) != len(plan.Statements) || first.Pending() != plan.Pending() {
		t.Errorf("dry run named %d statements, %d pending; the run %d and %d", len(plan.Statements), plan.Pending(), len(first.Statements), first.Pending())
	}
	if got := codes(first.Findings, preflight.Warning); got != "table_without_identity table_without_identity table_unlogged" {
		t.Errorf("findings %s: %v", got, first.Findings)
	}
	for sql, want := range map[string]string{
		`select string_agg(schemaname || '.' || tablename, ' ' order by 1) from (select schemaname, tablename from pg_publication_tables where pubname = 'pgwaltz' order by 1, 2) x(schemaname, tablename)`: `Odd "one.T'x public.byindex public.keyless public.parts public.subscriptions public.users`,
		`select string_agg(relname || relreplident::text, ' ' order by relname) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')`:                                        "byindexf keylessf part1f partsf r4d r4bn scratchd subscriptionsf usersf",
		`select string_agg(table_name || state, ' ' order by table_name) from pgwaltz.copy`:                                                                                                                 "T'xpending byindexpending keylesspending partspending subscriptionspending userspending",
		`select region || cluster from pgwaltz.node`:                                                            w.region + "test",
		`select plugin || database from pg_replication_slots where slot_name = 'pgwaltz_test_` + w.region + `'`: "pgoutput" + w.text("select current_database()"),
		`select roname from pg_replication_origin where roname = 'pgwaltz_test_us'`:                             "pgwaltz_test_us",
		`select pubviaroot from pg_publication where pubname = 'pgwaltz'`:                                       "true",
		`select count(*) from pg_trigger where not tgisinternal and tgname like '%pgwaltz%'`:                    "0",
		`select obj_description('pgwaltz'::regnamespace)`:                                                       "pgwaltz schema version 1",
	} {
		if got := w.text(sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	after := w.dump()
	second := w.apply(w.admin, cfg)
	if second.Pending() != 0 || w.dump() != after {
		t.Errorf("the second run changes something: %d pending, %v", second.Pending(), second.Statements)
	}
	if errs := w.check(w.admin, cfg).Errors(); len(errs) > 0 {
		t.Errorf("check after setup: %v", errs)
	}
	// What setup made bears the application's writes.
	w.exec(`insert into public.r4 values (1)`, `update public.r4 set a = 2`, `insert into public.parts values (1)`, `delete from public.parts`)

	// A new table is added and marked for copying, the others are not.
	w.exec(`update pgwaltz.copy set state = 'done'`, `create table public.late (id int primary key)`)
	w.apply(w.admin, cfg)
	if got := w.text(`select string_agg(table_name, ' ') from pgwaltz.copy where state = 'pending'`); got != "late" {
		t.Errorf("marked for copying: %s", got)
	}
	w.drop()
}

// drop gives the slot back, which is the cluster's.
func (w *site) drop() {
	w.exec(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'pgwaltz_test_` + w.region + `'`)
}

// The printed script does the same as a run, when it is fed to psql.
func TestPrintedScriptRuns(t *testing.T) {
	t.Parallel()
	w := newSite(t, pgtest.New(t)) // origins belong to the whole server, and the script makes one
	w.exec(account...)
	cfg := w.config("postgres", "apply: {privileges: restorer}\n")
	plan, err := preflight.Plan(t.Context(), w.admin, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range plan.Statements {
		if !st.Done {
			w.exec(st.SQL)
		}
	}
	if again := w.apply(w.admin, cfg); again.Pending() != 0 {
		for _, st := range again.Statements {
			if !st.Done {
				t.Errorf("still pending: %s", st.SQL)
			}
		}
	}
	var script bytes.Buffer
	plan.Print(&script)
	for _, want := range []string{`replica identity full;`, "create publication \"pgwaltz\" for table", "pg_create_logical_replication_slot", `"Odd ""one"."T'x"`} {
		if !strings.Contains(script.String(), want) {
			t.Errorf("the script lacks %s", want)
		}
	}
	w.drop()
}

func TestTwoSetupsAtOnce(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(account...)
	cfg := w.config("postgres", "")
	conns := []*pgx.Conn{w.connect("postgres"), w.connect("postgres"), w.connect("postgres")}
	var wg sync.WaitGroup
	errs := make([]error, len(conns))
	for i, conn := range conns {
		wg.Go(func() { _, errs[i] = preflight.Apply(t.Context(), conn, cfg, preflight.Talk{}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := w.text(`select count(*) from pgwaltz.node`); n != "1" {
		t.Errorf("%s nodes", n)
	}
	w.drop()
}

// The slot waits for open transactions, and setup says for whose.
func TestSlotNamesWhoItWaitsFor(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(`create table public.a (id int primary key)`)
	old := w.connect("postgres")
	tx, err := old.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `insert into public.a values (1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `savepoint s`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cfg := w.config("postgres", "replica_identity: keep\n")
	var said []string
	// The publication needs a lock on the table that the insert does not bar; the slot waits.
	_, err = preflight.Apply(ctx, w.connect("postgres"), cfg, preflight.Talk{
		Waiting: func(st preflight.Statement, who string) {
			said = append(said, st.SQL+": "+who)
			if err := tx.Rollback(ctx); err != nil {
				t.Error(err)
			}
		},
		Observe: func(ctx context.Context) (*pgx.Conn, error) {
			return pg.Connect(ctx, w.dsn, pg.Options{Region: w.region, Role: "watch"})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "pg_create_logical_replication_slot") || !strings.Contains(said[0], "pid ") ||
		!strings.Contains(said[0], "pgwaltz_"+w.region+"_test") {
		t.Errorf("said %v", said)
	}
	w.drop()
}
