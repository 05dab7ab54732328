package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/supervisor"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var (
	east = pgtest.Server{Settings: workers}
	west = pgtest.Server{Settings: workers}
)

var workers = []string{"max_worker_processes = 40", "max_logical_replication_workers = 30", "wal_retrieve_retry_interval = 200ms"}

func TestMain(m *testing.M) { pgtest.Main(m, &east, &west) }

// region is one database with its configuration.
type region struct {
	t    *testing.T
	cfg  *config.Config
	conn *pgx.Conn // of the test
	here *pgx.Conn // of the program
}

// pair is eu, which publishes, and us, which applies. cluster is a name that no other test has.
func pair(t *testing.T, cluster, extra string) (eu, us *region) {
	t.Helper()
	a, b := east.Database(t), west.Database(t)
	eu = newRegion(t, fmt.Sprintf("cluster: %s\nregion: eu\ndirection: publish\nmode: native\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: us}]\n", cluster, a), a)
	us = newRegion(t, fmt.Sprintf("cluster: %s\nregion: us\ndirection: apply\nmode: native\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: eu, dsn: %q}]\n%s", cluster, b, a+" password=geheim", extra), b)
	for _, r := range []*region{eu, us} {
		r.exec(`create table public.item (id int primary key, body text, version int not null default 1, updated_at timestamptz not null default now())`)
	}
	return eu, us
}

func newRegion(t *testing.T, text, dsn string) *region {
	t.Helper()
	cfg := loadText(t, text)
	here, err := supervisor.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(context.Background()) })
	return &region{t: t, cfg: cfg, conn: pgtest.Connect(t, dsn), here: here}
}

func (r *region) exec(statements ...string) {
	r.t.Helper()
	pgtest.Exec(r.t, r.conn, statements...)
}

func (r *region) setup() {
	r.t.Helper()
	if _, err := preflight.Apply(r.t.Context(), r.here, r.cfg, preflight.Talk{}); err != nil {
		r.t.Fatal(err)
	}
}

// to switches, and returns what was run.
func (r *region) to(m config.Mode) (ran []string, err error) {
	r.t.Helper()
	_, err = supervisor.Switch(r.t.Context(), r.here, r.cfg, m, pglogical.Names{}, func(s fallback.Statement) {
		var b strings.Builder
		s.Print(&b)
		ran = append(ran, b.String())
	})
	return ran, err
}

func (r *region) must(m config.Mode) []string {
	r.t.Helper()
	ran, err := r.to(m)
	if err != nil {
		r.t.Fatal(err)
	}
	return ran
}

// text is one value.
func (r *region) text(sql string) (s string) {
	r.t.Helper()
	if err := r.conn.QueryRow(r.t.Context(), "select coalesce(("+sql+")::text, '')").Scan(&s); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// eventually asks until the value is the wanted one.
func (r *region) eventually(sql, want string) {
	r.t.Helper()
	deadline, tick := time.After(60*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		got := r.text(sql)
		if got == want {
			return
		}
		select {
		case <-deadline:
			r.t.Fatalf("%s: %q, want %q", sql, got, want)
		case <-tick.C:
		}
	}
}

const all = `select string_agg(id || '=' || body, ' ' order by id) from public.item`

// drop lets the databases of a test go: a subscription would keep its worker.
func (r *region) dropSubscription(name string) {
	r.t.Cleanup(func() {
		conn, err := pgx.ConnectConfig(context.Background(), r.conn.Config())
		if err != nil {
			return
		}
		defer conn.Close(context.Background())
		for _, s := range []string{"disable", "set (slot_name = none)"} {
			_, _ = conn.Exec(context.Background(), "alter subscription "+name+" "+s)
		}
		_, _ = conn.Exec(context.Background(), "drop subscription if exists "+name)
	})
}

func TestNativeFromNothing(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "fresh", "")
	us.dropSubscription("pgwaltz_fresh_eu")
	if _, err := us.to(config.ModeNative); !strings.Contains(codes(err), "no_schema") {
		t.Fatalf("before setup: %v", err)
	}
	eu.exec(`insert into public.item values (1, 'one'), (2, 'two')`)
	eu.setup()
	us.setup()
	eu.must(config.ModeNative)
	ran := us.must(config.ModeNative)
	if text := strings.Join(ran, ""); strings.Contains(text, "geheim") || !strings.Contains(text, "create subscription") || !strings.Contains(text, "create_slot = false") || !strings.Contains(text, "copy_data = true") {
		t.Errorf("it ran %s", text)
	}
	us.eventually(all, "1=one 2=two")
	eu.exec(`insert into public.item values (3, 'three')`, `update public.item set body = 'zwei', version = 2 where id = 2`, `delete from public.item where id = 1`)
	us.eventually(all, "2=zwei 3=three")
	if again := us.must(config.ModeNative); len(again) != 0 {
		t.Errorf("the second time it ran %q", again)
	}
	// A table that is new comes with the next switch.
	for _, r := range []*region{eu, us} {
		r.exec(`create table public.late (id int primary key, body text)`)
	}
	eu.exec(`insert into public.late values (1, 'late')`)
	eu.setup()
	if text := strings.Join(us.must(config.ModeNative), ""); !strings.Contains(text, "refresh publication with (copy_data = true)") {
		t.Errorf("it ran %s", text)
	}
	us.eventually(`select body from public.late`, "late")
	if got := us.text(`select mode || settled from pgwaltz.mode`); got != "nativetrue" {
		t.Errorf("mode %q", got)
	}
}

// A row that is there already would stop the server's copy for ever.
func TestNativeRefusesFilledTables(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "filled", "")
	eu.setup()
	us.setup()
	us.exec(`insert into public.item values (1, 'mine')`)
	if _, err := us.to(config.ModeNative); codes(err) != "table_not_empty" {
		t.Fatal(err)
	}
	if got := us.text(`select count(*) from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())`); got != "0" {
		t.Errorf("%s subscriptions", got)
	}
}

// libpq refuses what this program takes: the statement fails, and its password is neither in the error nor in the server's log.
func TestNoErrorHoldsThePassword(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "mask", "")
	eu.setup()
	us.setup()
	us.cfg.Peers[0].DSN = config.NewDSN(us.cfg.Peers[0].DSN.Reveal() + "-as-nothing-else search_path=geheim-as-nothing-else")
	before := us.shown()
	_, err := us.to(config.ModeNative)
	if pg.Code(err) != "42601" || !strings.Contains(err.Error(), "search_path") {
		t.Fatalf("%v", err)
	}
	if text := fmt.Sprintf("%v %+v", err, errors.Unwrap(err)); strings.Contains(text, "geheim") {
		t.Errorf("%s", text)
	}
	log, err := os.ReadFile(west.Cluster(t).Log())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(log), "\n") {
		if strings.Contains(line, "geheim-as-nothing-else") {
			t.Errorf("the server's log: %s", line)
		}
	}
	if after := us.shown(); after != before {
		t.Errorf("what the server logs of this session was %s, and is %s", before, after)
	}
}

// shown is what the server logs of the program's session.
func (r *region) shown() string {
	r.t.Helper()
	var s string
	if err := r.here.QueryRow(r.t.Context(), `select string_agg(name || '=' || setting, ' ' order by name) from pg_settings where name like 'log_%statement%'`).Scan(&s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// With an index over the version as identity, each update would be left out silently.
func TestNativeMendsTheIdentity(t *testing.T) {
	t.Parallel()
	eu, us := pair(t, "ident", "")
	us.dropSubscription("pgwaltz_ident_eu")
	us.exec(`create unique index by_version on public.item (id, version, updated_at)`, `alter table public.item replica identity using index by_version`)
	eu.setup()
	us.setup()
	us.must(config.ModeNative)
	eu.exec(`insert into public.item values (1, 'one')`, `update public.item set body = 'uno', version = 7`)
	us.eventually(all, "1=uno")
	eu.exec(`update public.item set body = 'eins', version = 9, updated_at = 'epoch'`)
	us.eventually(all, "1=eins")
	if got := us.text(`select relreplident from pg_class where oid = 'public.item'::regclass`); got != "f" {
		t.Errorf("identity %q", got)
	}
}

func TestNativeRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spoil      func(eu, us *region)
	}{
		{"loop", "loop", func(_, us *region) { us.cfg.Direction = config.DirectionBoth; us.setup() }},
		{"missing", "table_missing", func(_, us *region) { us.exec(`drop table public.item`) }},
		{"column", "column_missing", func(eu, _ *region) { eu.exec(`alter table public.item add more text`) }},
		{"publication", "no_publication", func(eu, _ *region) { eu.exec(`drop publication pgwaltz`) }},
		{"node", "wrong_node", func(eu, _ *region) { eu.exec(`update pgwaltz.node set region = 'asia'`) }},
		{"unnamed", "wrong_node", func(eu, _ *region) { eu.exec(`delete from pgwaltz.node`) }},
		{"hidden", "wrong_node", func(eu, us *region) {
			eu.exec(`create role hidden_eu login replication`)
			us.cfg.Peers[0].DSN = config.NewDSN(pgtest.As(eu.cfg.Postgres.DSN.Reveal(), "hidden_eu"))
		}},
		{"away", "peer_unread", func(_, us *region) {
			us.cfg.Peers[0].DSN = config.NewDSN("host=127.0.0.1 port=1 user=postgres dbname=x connect_timeout=2")
		}},
		{"itself", "same_database", func(_, us *region) { us.cfg.Peers[0].DSN = us.cfg.Postgres.DSN }},
		{"busy", "sidecar_runs", func(_, us *region) {
			us.exec(`insert into pgwaltz.lead select 'us', pid, usename, backend_start from pg_stat_activity where pid = pg_backend_pid()`)
		}},
		{"right", "no_subscription_right", func(_, us *region) {
			us.exec(`create role plain_us login`, `grant usage on schema pgwaltz to plain_us`, `grant all on all tables in schema pgwaltz to plain_us`, `grant select on public.item to plain_us`, `grant execute on function pg_show_replication_origin_status() to plain_us`)
			us.cfg.Postgres.DSN = config.NewDSN(pgtest.As(us.cfg.Postgres.DSN.Reveal(), "plain_us"))
			here, err := supervisor.Connect(us.t.Context(), us.cfg)
			if err != nil {
				us.t.Fatal(err)
			}
			us.t.Cleanup(func() { here.Close(context.Background()) })
			us.here = here
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eu, us := pair(t, "refuse-"+c.name, "")
			eu.setup()
			us.setup()
			c.spoil(eu, us)
			_, err := us.to(config.ModeNative)
			if codes(err) != c.want {
				t.Errorf("%q: %v", codes(err), err)
			}
			if got := us.text(`select count(*) from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())`); got != "0" {
				t.Errorf("%s subscriptions", got)
			}
			if got := us.text(`select to_regclass('pgwaltz.mode') is null`); got != "true" {
				t.Error("the refused switch has made a table")
			}
		})
	}
}

// codes are those of the findings that err refuses for.
func codes(err error) string {
	var r *preflight.Refusal
	if !errors.As(err, &r) {
		return ""
	}
	var out []string
	for _, f := range r.Findings {
		out = append(out, f.Code)
	}
	return strings.Join(out, " ")
}
