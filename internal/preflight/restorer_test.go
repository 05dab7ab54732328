package preflight_test

import "testing"

// Triggers that change everything leave an applied row as it came: of a table with awkward
// columns, of a partition with another order of columns, of one without a stamp. What a trigger
// writes by itself is left to the application's triggers.
func TestAppliedRowsAreKeptWhole(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(
		`create type public.pt as (x int, y text)`,
		`create table public.odd (id int primary key, "by ""x" text, j json, r int4range, f float8, a text[], c public.pt, gone int, v text, g text generated always as (upper(v)) stored,
			version bigint not null default 0, updated_at timestamptz not null default now())`,
		`alter table public.odd drop column gone`,
		`create table public.bare (id int primary key, at timestamptz)`,
		`create table public.other (id int primary key, n int not null default 0, version bigint not null default 0, updated_at timestamptz not null default now())`,
		`insert into public.other (id) values (1)`,
		`create table public.parts (id int not null, v text, version bigint not null default 0, updated_at timestamptz not null default now()) partition by range (id)`,
		`create table public.one (version bigint not null, gone int, v text, updated_at timestamptz not null, id int not null)`,
		`alter table public.one drop column gone`, `alter table public.parts attach partition public.one for values from (0) to (10)`, `alter table public.parts add primary key (id)`,
		`create function public.meddle() returns trigger language plpgsql as $$ begin
			update public.other set n = n + 1;
			new."by ""x" := session_user; new.j := '1'; new.r := 'empty'; new.f := 0; new.a := null; new.c := null; new.version := 99; new.updated_at := 'epoch'; return new; end $$`,
		`create function public.stamp() returns trigger language plpgsql as $$ begin new.version := old.version + 1; new.updated_at := clock_timestamp(); return new; end $$`,
		`create function public.seen() returns trigger language plpgsql as $$ begin new.at := clock_timestamp(); return new; end $$`,
		`create function public.word() returns trigger language plpgsql as $$ begin new.v := 'trigger'; new.version := 99; return new; end $$`,
		`create trigger meddle before insert or update on public.odd for each row execute function public.meddle()`,
		`create trigger stamp before update on public.other for each row execute function public.stamp()`,
		`create trigger seen before insert or update on public.bare for each row execute function public.seen()`,
		`create trigger word before insert or update on public.parts for each row execute function public.word()`,
		"create role keeper_"+w.region+" login",
	)
	role := "keeper_" + w.region
	cfg := w.config(role, "postgres: {dsn: \""+w.as(role)+"\", admin_dsn: \""+w.dsn+"\"}\napply: {privileges: restorer}\n")
	w.apply(w.admin, cfg)
	defer w.drop()
	w.exec("insert into public.other (id) values (2)")
	conn := w.connect(role)
	for _, s := range []string{
		"begin", "select set_config('pgwaltz.apply', 'on', true)",
		`insert into public.odd (id, "by ""x", j, r, f, a, c, v, version, updated_at) values (1, 'it''s ("x"\,)', '{"b": 1,  "a":[null]}', '[1,5)', 'NaN', '[0:1]={"a,b",NULL}', row(1, ''), null, 7, 'infinity')`,
		`insert into public.bare values (1, '2020-01-01 00:00:00+00')`, `insert into public.parts values (1, 'mine', 7, '2020-01-01 00:00:00+00')`,
		`update public.odd set v = 'new', version = 8`, `update public.bare set at = null`, `update public.parts set v = null, version = 8`, "commit",
	} {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	for _, tt := range [][2]string{
		{`select "by ""x" || j::text || r::text || f::text || a::text || c::text || v || g || version || updated_at from public.odd`,
			`it's ("x"\,){"b": 1,  "a":[null]}[1,5)NaN[0:1]={"a,b",NULL}(1,"")newNEW8infinity`},
		{`select at is null from public.bare`, "true"},
		{`select (v is null) || ' ' || version from public.parts`, "true 8"},
		{`select string_agg(n || ' ' || version, ',' order by id) from public.other`, "2 2,2 2"}, // the trigger's own writes are the application's
	} {
		if got := w.text(tt[0]); got != tt[1] {
			t.Errorf("%s\n got %s\nwant %s", tt[0], got, tt[1])
		}
	}
}
