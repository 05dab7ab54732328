package cutover

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// walk is a pair of regions; the application is at a, and moves to b.
type walk struct {
	*testing.T
	fleet *harness.Fleet
	pair  *harness.Pair
	a, b  *harness.Region
	at    *harness.Region // whose configuration the commands use
}

// tables and rights of an application as they may be: an owner that is the application, explicit grants, columns, PUBLIC, groups, sequences of
// all kinds.
const tables = `
create table item (id int primary key, n int not null, body text, version bigint not null default 1, updated_at timestamptz not null default now());
create table probe (id text primary key, at timestamptz not null);
create schema other;
create table other.thing (id bigint generated always as identity primary key, body text);
create table other.wide (id serial primary key, a int, b int);
create sequence other.down increment -2 minvalue -1000 maxvalue 1000 start 100;
create sequence other.round maxvalue 20 cycle;
create sequence "Never used";
create view other.seen as select id, body from other.thing;
`

const rights = `
create role keeper login; create role app login; create role reader login; create role clerks; create role clerk login in role clerks; create role boss login;
`

const grants = `
alter table item owner to keeper; alter table other.thing owner to keeper; alter schema other owner to keeper; alter table other.wide owner to keeper;
grant usage on schema other to public;
grant select, insert, update, delete on item to app; grant select on item to reader; grant select, insert on item to clerks;
grant insert, delete on probe to public; grant select on probe to app with grant option;
grant all on other.thing to app; grant truncate, insert on other.thing to boss with grant option;
grant select, update (a, b), insert (b) on other.wide to app; grant update (a) on other.wide to public;
grant insert on other.seen to clerk; grant usage on sequence other.down to app; grant all on sequence other.round to public; grant all on "Never used" to app;
`

func newWalk(t *testing.T, name string) *walk {
	t.Helper()
	return newWalkOn(t, nil, name, nil)
}

// newWalkOn is newWalk on servers with more settings, and with what configure does before setup.
func newWalkOn(t *testing.T, more map[string]string, name string, configure func(*walk)) *walk {
	t.Helper()
	settings := map[string]string{"wal_retrieve_retry_interval": "200ms"}
	maps.Copy(settings, more)
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	fleet, err := harness.NewFleet(harness.ClusterConfig{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	pair, err := fleet.Pair(t.Context(), name, harness.PairOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{T: t, fleet: fleet, pair: pair, a: pair.A, b: pair.B, at: pair.A}
	t.Cleanup(func() {
		if t.Failed() {
			for _, r := range pair.Regions() {
				t.Logf("%s: %s", r.Side, harness.TailFile(r.Sidecar.LogPath, 12))
				t.Logf("server of %s: %s", r.Side, harness.TailFile(r.Cluster.LogPath, 8))
			}
		}
		pair.Close()
	})
	// The sidecars have a role of their own, and commands work as the superuser.
	for _, r := range pair.Regions() {
		w.sql(r, rights+tables+grants+`create role sidecar login replication; alter role boss in database `+name+` set work_mem = '5MB'; alter role boss in database `+name+` set default_transaction_read_only = off;`)
		r.Sidecar.Set("postgres.admin_dsn", r.Cluster.DSN(name))
		r.Sidecar.Set("postgres.dsn", pgtest.As(strings.Replace(r.Cluster.DSN(name), "postgres@", "sidecar@", 1), "sidecar"))
		r.Sidecar.Set("publish.heartbeat", "1s")
	}
	w.a.Sidecar.Set("peers", []any{peer(w.a, w.b)})
	w.b.Sidecar.Set("peers", []any{peer(w.b, w.a)})
	if configure != nil {
		configure(w)
	}
	w.must(pair.Setup(t.Context()))
	w.must(w.a.Sidecar.Start())
	w.must(w.b.Sidecar.Start())
	if configure == nil {
		w.must(pair.WaitInStep(t.Context(), 2*time.Minute))
	}
	return w
}

// peer is the other region with its database.
func peer(_, other *harness.Region) map[string]any {
	return map[string]any{"region": other.Name, "dsn": other.Cluster.DSN(other.Database)}
}

func (w *walk) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *walk) sql(r *harness.Region, text string) string {
	w.Helper()
	out, err := r.Cluster.PSQL(w.Context(), r.Database, text)
	w.must(err)
	return strings.TrimSpace(out)
}

// run runs a command of the kit; fail is a failpoint, or "".
func (w *walk) run(fail string, words ...string) (int, string) {
	w.Helper()
	w.at.Sidecar.Setenv("PGWALTZ_FAILPOINT", fail)
	defer w.at.Sidecar.Setenv("PGWALTZ_FAILPOINT", "")
	// -config stands behind the first word.
	res, err := w.at.Sidecar.CLI(w.Context(), "cutover", words...)
	w.must(err)
	return res.Code, res.Stdout + res.Stderr
}

// ok is run that must succeed.
func (w *walk) ok(words ...string) string {
	w.Helper()
	code, text := w.run("", words...)
	if code != 0 {
		w.Fatalf("cutover %s: code %d: %s", strings.Join(words, " "), code, text)
	}
	return text
}

func (w *walk) id(r *harness.Region) string {
	w.Helper()
	return w.sql(r, `select system_identifier || '/' || current_database() from pg_control_system()`)
}

// pause is pause-write with who both are.
func (w *walk) pause(more ...string) []string {
	w.Helper()
	return append([]string{"pause-write", "--source", w.id(w.a), "--destination", w.id(w.b), "--grace", "200ms"}, more...)
}

// within waits for a condition, generously: other work runs beside.
func (w *walk) within(what string, f func() bool) {
	w.Helper()
	w.must(harness.Poll(w.Context(), 2*time.Minute, 100*time.Millisecond, func(context.Context) (bool, string, error) { return f(), what, nil }))
}

// all is what a cutover may change and has to put back: rights, settings of roles, sequences, and what it makes.
const all = `
select 'acl ' || c.oid::regclass || ' ' || x::text from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))) x where n.nspname in ('public', 'other')
union all select 'column ' || attrelid::regclass || ' ' || attname || ' ' || x::text from pg_attribute, aclexplode(attacl) x where attrelid > 16384
union all select 'database ' || x::text from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) x where datname = current_database()
union all select 'setting ' || setrole::regrole || ' ' || setconfig::text from pg_db_role_setting
union all select 'sequence ' || sequencename || ' ' || coalesce(last_value::text, '-') from pg_sequences where schemaname in ('public', 'other')
union all select 'made ' || relname from pg_class where relnamespace = 'pgwaltz'::regnamespace and relname like 'cutover%'
union all select 'made ' || proname from pg_proc where pronamespace = 'pgwaltz'::regnamespace and proname like 'cutover%'
order by 1`

func (w *walk) everything() string {
	w.Helper()
	return "a:\n" + w.sql(w.a, all) + "\nb:\n" + w.sql(w.b, all)
}

// same holds what is there now against what was.
func (w *walk) same(before, when string) {
	w.Helper()
	now := w.everything()
	if now == before {
		return
	}
	was := map[string]bool{}
	for line := range strings.SplitSeq(before, "\n") {
		was[line] = true
	}
	var diff []string
	for line := range strings.SplitSeq(now, "\n") {
		if !was[line] {
			diff = append(diff, "+ "+line)
		}
		delete(was, line)
	}
	for line := range was {
		diff = append(diff, "- "+line)
	}
	w.Errorf("%s: not as before:\n%s", when, strings.Join(diff, "\n"))
}

// as runs a statement as a role, and returns the SQLSTATE.
func (w *walk) as(r *harness.Region, role, text string) string {
	w.Helper()
	conn, err := pgx.Connect(w.Context(), pgtest.As(strings.Replace(r.Cluster.DSN(r.Database), "postgres@", role+"@", 1), role))
	if err != nil {
		return state(err)
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(w.Context(), text)
	return state(err)
}

// writers are statements of each role that write, by what gives it the right.
var writers = []struct{ role, text string }{
	{"keeper", `insert into item (id, n) values (-1, 1)`},
	{"app", `update item set n = 2`},
	{"app", `begin read write; delete from item; commit`},
	{"clerk", `begin read write; insert into item (id, n) values (-2, 1); commit`},
	{"reader", `begin read write; insert into probe values ('x', now()); commit`},
	{"boss", `begin read write; truncate other.thing; commit`},
	{"app", `begin read write; update other.wide set a = 1; commit`},
	{"app", `begin read write; insert into other.wide (b) values (1); commit`},
	{"reader", `begin read write; update other.wide set a = 1; commit`},
	{"clerk", `begin read write; insert into other.seen (body) values ('x'); commit`},
	{"app", `begin read write; select nextval('other.down'); commit`},
	{"reader", `begin read write; select setval('other.round', 3); commit`},
	{"keeper", `begin read write; delete from other.thing; commit`},
}

// stopped wants every kind of write to be refused, and reads to go on. While a pause is being reached it ends sessions, new ones too:
// such a one is asked again.
func (w *walk) stopped(r *harness.Region) {
	w.Helper()
	for _, x := range writers {
		got := w.as(r, x.role, x.text)
		for n := 0; got == "57P01" && n < 20; n++ {
			got = w.as(r, x.role, x.text)
		}
		if got != "42501" && got != "25006" {
			w.Errorf("as %s: %s: %q, and not refused", x.role, x.text, got)
		}
	}
	if got := w.as(r, "app", `select count(*) from item`); got != "" {
		w.Errorf("app cannot read: %s", got)
	}
}

// load writes as the application until it is stopped: one row each transaction, some with numbers of sequences. It connects again whenever its session ends.
type load struct {
	stop func() (committed int)
	n    func() int
}

func (w *walk) load(r *harness.Region, sessions int) *load {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	dsn := pgtest.As(strings.Replace(r.Cluster.DSN(r.Database), "postgres@", "app@", 1), "app")
	for i := range sessions {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; {
				conn, err := pgx.Connect(ctx, dsn)
				if err != nil {
					_ = harness.Pause(ctx, 20*time.Millisecond)
					continue
				}
				for ctx.Err() == nil && !conn.IsClosed() {
					n++
					_, err := conn.Exec(ctx, fmt.Sprintf(`begin; insert into item (id, n, body) values (%d, 1, 'load') on conflict (id) do update set n = item.n + 1, version = item.version + 1;
insert into other.thing (body) values ('load'); commit`, i*1000000+n))
					if err == nil {
						mu.Lock()
						done++
						mu.Unlock()
					} else if !conn.IsClosed() {
						_, _ = conn.Exec(ctx, "rollback")
					}
					_ = harness.Pause(ctx, 5*time.Millisecond)
				}
				conn.Close(context.Background())
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return done }
	return &load{n: count, stop: sync.OnceValue(func() int { cancel(); wg.Wait(); return count() })}
}

func state(err error) string {
	if err == nil {
		return ""
	}
	var e interface{ SQLState() string }
	for x := err; x != nil; {
		if s, ok := x.(interface{ SQLState() string }); ok {
			e = s
			break
		}
		u, ok := x.(interface{ Unwrap() error })
		if !ok {
			break
		}
		x = u.Unwrap()
	}
	if e == nil {
		return err.Error()
	}
	return e.SQLState()
}
