package hold_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// place is a database with an owner who is no superuser, and an application. The names of roles begin with the database's.
type place struct {
	*testing.T
	dsn, name   string
	root, owner *pgx.Conn
	o           hold.Options
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{T: t, dsn: server.Database(t)}
	p.root = pgtest.Connect(t, p.dsn)
	p.name = p.root.Config().Database
	p.exec(`create role %s_owner login; create role %s_app login; create role %s_sidecar login; create schema pgwaltz authorization %s_owner;
grant all on schema public to %s_owner; set role %s_owner`)
	p.exec(lead.Schema)
	p.exec(`grant usage on schema pgwaltz to %s_sidecar; grant insert, update on pgwaltz.lead to %s_sidecar;
create table item (id int primary key); create table other (id int primary key); create table "Third" (id serial primary key, n int);
grant insert, select on item to %s_app; grant update on other to %s_app with grant option; grant update (n), insert on "Third" to %s_app; grant delete on item to public; reset role`)
	var err error
	if p.owner, err = pg.Connect(t.Context(), pgtest.As(p.dsn, p.name+"_owner"), pg.Options{Region: "eu", Role: "cutover"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.owner.Close(context.Background()) })
	p.o = hold.Options{Region: "eu", Peer: "us", Source: "1/a", Destination: "2/b", Except: []string{"postgres"}, Hold: time.Hour}
	return p
}

// exec runs statements as the superuser; %s is the database's name.
func (p *place) exec(text string) {
	p.Helper()
	pgtest.Exec(p.T, p.root, strings.ReplaceAll(text, "%s", p.name))
}

func (p *place) ask(text string) string {
	p.Helper()
	var out string
	if err := p.root.QueryRow(p.Context(), strings.ReplaceAll(text, "%s", p.name)).Scan(&out); err != nil {
		p.Fatal(err)
	}
	return out
}

// rights are all of them, with what a cutover makes.
func (p *place) rights() string {
	p.Helper()
	return p.ask(`select string_agg(x, E'\n' order by x) from (
select c.oid::regclass || ' ' || x::text from pg_class c, aclexplode(coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))) x where c.relnamespace = 'public'::regnamespace
union all select attrelid::regclass || ' ' || attname || ' ' || x::text from pg_attribute, aclexplode(attacl) x where attrelid >= 16384
union all select x::text from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) x where datname = current_database()
union all select setrole || ' ' || setconfig::text from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = current_database())
union all select proname from pg_proc where pronamespace = 'pgwaltz'::regnamespace) y (x)`)
}

func (p *place) may(what string, want bool) {
	p.Helper()
	if got := p.ask(`select (` + what + `)::text`); got != fmt.Sprint(want) {
		p.Errorf("%s: %s", what, got)
	}
}

func (p *place) take() {
	p.Helper()
	if _, err := hold.Take(p.Context(), p.owner, p.o); err != nil {
		p.Fatal(err)
	}
}

func (p *place) giveBack() {
	p.Helper()
	if gave, err := hold.GiveBack(p.Context(), p.owner); !gave || err != nil {
		p.Fatal(gave, err)
	}
}

// refused wants a refusal with the code.
func (p *place) refused(conn *pgx.Conn, code string) {
	p.Helper()
	before := p.rights()
	_, err := hold.Take(p.Context(), conn, p.o)
	var r *preflight.Refusal
	if !errors.As(err, &r) || !slices.ContainsFunc(r.Findings, func(f preflight.Finding) bool { return f.Code == code }) {
		p.Errorf("%v, want %s", err, code)
	}
	if now := p.rights(); now != before {
		p.Errorf("something was changed: %s, then %s", before, now)
	}
}

// The owner of the tables can pause and give back; what is missing besides is named.
func TestOwnerSuffices(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	before := p.rights()
	p.exec(`set role %s_owner; create function writes() returns void language sql security definer as 'insert into public.item values (7)'; reset role`)
	plan, err := hold.Try(t.Context(), p.owner, p.o)
	if err == nil && !slices.ContainsFunc(plan.Findings, func(f preflight.Finding) bool { return f.Code == "definer" && strings.Contains(f.What, "writes()") }) {
		t.Errorf("%+v", plan.Findings)
	}
	if err != nil || len(plan.Statements()) == 0 || strings.Join(plan.Held(), " ") == "" || p.rights() != before {
		t.Fatalf("%v, %v", plan, err)
	}
	p.take()
	p.may(`has_table_privilege('%s_app', 'item', 'insert, delete') or has_any_column_privilege('%s_app', 'other', 'update') or has_any_column_privilege('%s_app', '"Third"', 'insert, update')`, false)
	p.may(`has_table_privilege('%s_app', 'item', 'select') and has_table_privilege('%s_owner', 'item', 'insert')`, true)
	if _, err := hold.Drain(t.Context(), p.owner, nil, 0); err != nil {
		t.Error(err)
	}
	s, err := hold.Load(t.Context(), p.owner)
	if err != nil || !s.Paused || !s.Drained || s.Peer != "us" || s.Source != "1/a" {
		t.Errorf("%+v, %v", s, err)
	}
	p.giveBack()
	if now := p.rights(); now != before {
		t.Errorf("rights were %s and are %s", before, now)
	}
	if gave, err := hold.GiveBack(t.Context(), p.owner); gave || err != nil {
		t.Error(gave, err)
	}

	// A session of the application, which the owner may not end.
	app := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_app"))
	p.refused(p.owner, "cannot_end")
	p.exec(`grant pg_signal_backend, pg_read_all_stats to %s_owner`)
	p.take()
	if n, err := hold.Drain(t.Context(), p.owner, nil, 0); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := app.Exec(t.Context(), "select 1"); err == nil {
		t.Error("a session from before the pause goes on")
	}
	p.giveBack()
}

// What cannot be held, or could not be given back, is refused.
func TestRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	stranger := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_app"))
	p.o.Except = append(p.o.Except, p.name+"_owner")
	p.exec(`grant all on schema pgwaltz to %s_app; grant create on schema public to %s_app`)
	p.refused(stranger, "no_owner")
	stranger.Close(context.Background())
	p.o.Except = []string{"postgres"}
	p.exec(`set role %s_app; grant update on other to public; reset role`)
	p.refused(p.owner, "granted_by_other")
	p.exec(`set role %s_app; revoke update on other from public; reset role`)
	p.exec(`grant %s_owner to %s_app`)
	p.refused(p.owner, "still_writes")
	p.exec(`alter role %s_app noinherit`)
	p.refused(p.owner, "may_become")
	p.exec(`revoke %s_owner from %s_app; create role %s_all login in role pg_write_all_data`)
	all := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_all"))
	p.exec(`grant pg_signal_backend, pg_read_all_stats to %s_owner`)
	p.refused(p.owner, "cannot_hold")
	all.Close(context.Background())
	p.o.Except = append(p.o.Except, "nobody")
	p.refused(p.owner, "no_role")
}

// Foreign keys that are enforced for applied rows are checked with the owner's rights, and triggers may have them: the owner cannot be held then.
func TestOwnerChecks(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	root, err := pg.Connect(t.Context(), p.dsn, pg.Options{Region: "eu", Role: "cutover"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close(context.Background()) })
	p.exec(`create role %s_keeper login; create table child (id int primary key, item int references item); alter table item owner to %s_keeper; alter table child owner to %s_keeper;
create function quiet() returns trigger language plpgsql as 'begin return new; end'; create trigger ` + pg.RestoreTrigger + ` before insert on child for each row execute function quiet()`)
	p.refused(root, "owner_checks")
	p.exec(`drop trigger ` + pg.RestoreTrigger + ` on child`)
	if _, err := hold.Try(t.Context(), root, p.o); err != nil {
		t.Error(err)
	}
	p.exec(`create function definer() returns trigger language plpgsql security definer as 'begin insert into public.other values (new.id); return new; end';
create trigger logged after insert on child for each row execute function definer(); alter table child enable always trigger logged; alter function definer() owner to %s_keeper`)
	p.refused(root, "owner_checks")
	p.o.Except = append(p.o.Except, p.name+"_keeper")
	if _, err := hold.Try(t.Context(), root, p.o); err != nil {
		t.Error(err)
	}
}

// Rights that come back in the pause are found.
func TestTight(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.take()
	if err := hold.Tight(t.Context(), p.owner, nil, p.o.Except); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{`grant update (id) on item to %s_app`, `create role %s_new login; create table fresh (id int); grant delete on fresh to %s_new`} {
		p.exec(sql)
		var leak *hold.LeakError
		if err := hold.Tight(t.Context(), p.owner, nil, p.o.Except); !errors.As(err, &leak) {
			t.Errorf("%s: %v", sql, err)
		}
		p.exec(`revoke all on item from %s_app`)
	}
	p.giveBack()
}

// What is gone, renamed or new meanwhile does not keep the rest from being given back. It is not beside others, whose pauses hold all roles of the server.
func TestGoneMeanwhile(t *testing.T) {
	p := newPlace(t)
	p.exec(`create role %s_late login; grant update on other to %s_late; grant select on item to %s_late`)
	p.take()
	p.exec(`drop table other; alter table item rename to renamed; alter role %s_app rename to "%s App"; alter table "Third" rename n to m; alter table "Third" set schema pgwaltz`)
	p.exec(`drop owned by %s_late; drop role %s_late`)
	p.giveBack()
	p.may(`has_table_privilege('%s App', 'renamed', 'insert') and has_column_privilege('%s App', 'pgwaltz."Third"', 'm', 'update') and has_table_privilege('%s App', 'pgwaltz."Third"', 'insert')`, true)
}

// A session that began in the pause is read-only as long as it lives: it is ended when writes are given back, and no other one.
func TestSessionsOfThePause(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	root, err := pg.Connect(t.Context(), p.dsn, pg.Options{Region: "eu", Role: "cutover"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close(context.Background()) })
	before := p.rights()
	other := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_sidecar"))
	p.o.Ours = []string{p.name + "_sidecar"}
	p.o.Except = append(p.o.Except, p.name+"_sidecar")
	if _, err := hold.Take(t.Context(), root, p.o); err != nil {
		t.Fatal(err)
	}
	inside := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_app"))
	if got := queryText(t, inside, "show default_transaction_read_only"); got != "on" {
		t.Error(got)
	}
	if gave, err := hold.GiveBack(t.Context(), root); !gave || err != nil {
		t.Fatal(gave, err)
	}
	if _, err := inside.Exec(t.Context(), "select 1"); err == nil {
		t.Error("a session of the pause goes on")
	}
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Error(err)
	}
	again := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_app"))
	if _, err := again.Exec(t.Context(), "insert into item values (1)"); err != nil {
		t.Error(err)
	}
	if now := p.rights(); now != before {
		t.Errorf("rights were %s and are %s", before, now)
	}
}

// What cannot be given back now is tried again, and the rest does not wait for it.
func TestNotAll(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.take()
	p.exec(`alter table item owner to postgres`)
	var e *hold.NotAllError
	if _, err := hold.GiveBack(t.Context(), p.owner); !errors.As(err, &e) || !strings.Contains(e.What, "item") {
		t.Error(err)
	}
	p.may(`has_table_privilege('%s_app', 'other', 'update')`, true)
	p.may(`has_table_privilege('%s_app', 'item', 'insert')`, false)
	p.exec(`alter table item owner to %s_owner`)
	p.giveBack()
	p.may(`has_table_privilege('%s_app', 'item', 'insert')`, true)
}

// The sidecar gives writes back when the time is over and not before, once; nobody else may. What was finished stays.
func TestOverdue(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	sidecar := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_sidecar"))
	p.o.Ours = []string{p.name + "_sidecar"}
	p.o.Except = append(p.o.Except, p.name+"_sidecar")
	overdue := func(conn *pgx.Conn, want string) {
		t.Helper()
		if said, err := hold.Overdue(t.Context(), conn); said != want || err != nil {
			t.Errorf("%q, %v; want %q", said, err, want)
		}
	}
	overdue(sidecar, "")
	p.take()
	overdue(sidecar, "")
	if said := queryText(t, sidecar, `select pgwaltz.cutover_back_out(true)`); said != "early" {
		t.Error(said)
	}
	app := pgtest.Connect(t, pgtest.As(p.dsn, p.name+"_app"))
	overdue(app, "")
	if err := hold.Extend(t.Context(), p.owner, time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	overdue(app, "")
	if err := hold.Arrive(t.Context(), p.owner, 1, 1); !errors.Is(err, hold.ErrOver) {
		t.Error(err)
	}
	overdue(sidecar, "done")
	overdue(sidecar, "")
	p.may(`has_table_privilege('%s_app', 'item', 'insert')`, true)

	p.exec(`grant pg_signal_backend, pg_read_all_stats to %s_owner`)
	p.take()
	if err := hold.Finish(t.Context(), p.owner); err != nil {
		t.Fatal(err)
	}
	overdue(sidecar, "")
	s, err := hold.Load(t.Context(), p.owner)
	if err != nil || !s.Finished || !s.Paused {
		t.Errorf("%+v, %v", s, err)
	}
	p.giveBack()
	if err := hold.Forget(t.Context(), p.owner); err != nil {
		t.Error(err)
	}
	// A function that somebody else has made is not run.
	p.exec(`create function pgwaltz.cutover_back_out(boolean) returns text language sql as 'select pg_sleep(0)::text'`)
	if _, err := hold.GiveBack(t.Context(), p.owner); err == nil {
		t.Error("a planted function was run")
	}
	overdue(sidecar, "")
}

func queryText(t *testing.T, conn *pgx.Conn, sql string) (out string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// With the right to connect, the application cannot come in, and pgwaltz can.
func TestNoConnect(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.o.Connect = true
	p.refused(p.owner, "no_owner")
	p.exec(`alter database %s owner to %s_owner`)
	before := p.rights()
	p.take()
	p.may(`has_database_privilege('%s_app', current_database(), 'connect')`, false)
	p.may(`has_database_privilege('%s_sidecar', current_database(), 'connect')`, true)
	if _, err := pgx.Connect(t.Context(), pgtest.As(p.dsn, p.name+"_app")); pg.Code(err) != "42501" {
		t.Error(err)
	}
	p.giveBack()
	if now := p.rights(); now != before {
		t.Errorf("rights were %s and are %s", before, now)
	}
}
