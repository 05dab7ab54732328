package pg_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

func TestLoadTable(t *testing.T) {
	t.Parallel()
	conn := connect(t, dsn(t))
	exec(t, conn,
		`create schema "S p"`, `create type public.mood as enum ('a','b')`, `create domain public.posint as int check (value > 0)`,
		`create table "S p"."T""x" (b int, a text collate "C", v bigint not null default 0, m public.mood, p public.posint, r regclass, ar int[], mm public.mood[],
			n numeric(10,2), rg int4range, x xml, g int generated always as (b * 2) stored, i int generated always as identity, s serial, primary key (a, b) include (v))`,
		`create unique index on "S p"."T""x" (lower(a)) where b > 0`,
		`alter table "S p"."T""x" drop column n`,
		`create function public.f() returns trigger language plpgsql as 'begin return new; end'`,
		`create trigger bump before update on "S p"."T""x" for each row execute function public.f('one', 'two')`)
	got, err := pg.LoadTable(t.Context(), conn, "S p", `T"x`)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.PrimaryKey, []string{"a", "b"}) || got.Identity != wal.IdentityDefault || !got.HasIdentity() {
		t.Errorf("key %v identity %c", got.PrimaryKey, got.Identity)
	}
	types := map[string]string{}
	var safe []string
	for _, c := range got.Columns {
		types[c.Name] = c.TypeName
		if c.BinarySafe {
			safe = append(safe, c.Name)
		}
	}
	if types["m"] != "public.mood" || types["p"] != "public.posint" || types["v"] != "bigint" || types["mm"] != "public.mood[]" || types["n"] != "" {
		t.Errorf("types %v", types)
	}
	if want := []string{"b", "a", "v", "ar", "rg", "g", "i", "s"}; !slices.Equal(safe, want) {
		t.Errorf("binary-safe %v, want %v", safe, want)
	}
	if got.BinarySafe() {
		t.Error("a table with an enum is not safe for binary")
	}
	if c := got.Column("g"); c.Generated != 's' || c.HasDefault {
		t.Errorf("generated column %+v", c)
	}
	if c := got.Column("i"); c.Identity != 'a' {
		t.Errorf("identity column %+v", c)
	}
	if c := got.Column("s"); !c.NotNull || !c.HasDefault {
		t.Errorf("serial column %+v", c)
	}
	if len(got.UniqueIndexes) != 2 || !slices.ContainsFunc(got.UniqueIndexes, func(i pg.Index) bool { return i.Partial && i.Expression }) {
		t.Errorf("indexes %+v", got.UniqueIndexes)
	}
	if len(got.Triggers) != 1 || !got.HasRowTriggers() || !got.HasUpdateTrigger() || !slices.Equal(got.Triggers[0].Args, []string{"one", "two"}) {
		t.Errorf("triggers %+v", got.Triggers)
	}
	if _, err := pg.LoadTable(t.Context(), conn, "public", "absent"); !errors.Is(err, pg.ErrNoTable) {
		t.Errorf("absent table: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	conn := connect(t, dsn(t))
	exec(t, conn,
		`create table public.nokey (a int)`, `create table public.keyless (a int)`, `alter table public.keyless replica identity full`,
		`create table public.nothing (a int primary key)`, `alter table public.nothing replica identity nothing`,
		`create table public.later (a int primary key deferrable)`,
		`create table public.byindex (a int primary key, b int not null, c int not null)`,
		`create unique index byindex_u on public.byindex (c, b)`, `alter table public.byindex replica identity using index byindex_u`,
		`create table public.dropped (a int not null)`, `create unique index dropped_u on public.dropped (a)`,
		`alter table public.dropped replica identity using index dropped_u`, `drop index public.dropped_u`,
		`create table public.parts (a int primary key) partition by range (a)`,
		`create table public.part1 partition of public.parts for values from (0) to (10)`)
	want := map[string]bool{"nokey": false, "keyless": true, "nothing": false, "later": false, "byindex": true, "dropped": false, "parts": true, "part1": true}
	tables, err := pg.LoadTables(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) != len(want) {
		t.Errorf("%d tables, want %d", len(tables), len(want))
	}
	for _, tb := range tables {
		if tb.HasIdentity() != want[tb.Name] {
			t.Errorf("%s: HasIdentity = %v", tb.Name, tb.HasIdentity())
		}
		if tb.Name == "byindex" && !slices.Equal(tb.IdentityIndex, []string{"c", "b"}) {
			t.Errorf("identity index %v", tb.IdentityIndex)
		}
		if tb.Name == "part1" && (!tb.Partition || tb.Root.Name != "parts") {
			t.Errorf("partition %+v", tb)
		}
	}
}

func TestSlotAndPublication(t *testing.T) {
	t.Parallel()
	conn := connect(t, dsn(t))
	if s, err := pg.LoadSlot(t.Context(), conn, "absent"); s != nil || err != nil {
		t.Fatalf("absent slot: %v, %v", s, err)
	}
	if p, err := pg.LoadPublication(t.Context(), conn, "absent"); p != nil || err != nil {
		t.Fatalf("absent publication: %v, %v", p, err)
	}
	exec(t, conn, `create table public.a (id int primary key, v text, g int generated always as (1) stored)`, `create table public.b (id int primary key)`,
		`create publication "P" for table public.a, public.b with (publish_via_partition_root = true)`,
		`select pg_create_logical_replication_slot('pg_test_slot', 'pgoutput')`)
	p, err := pg.LoadPublication(t.Context(), conn, "P")
	if err != nil {
		t.Fatal(err)
	}
	if !p.ViaRoot || p.AllTables || !p.Truncate || len(p.Tables) != 2 || !p.Has(wal.RelationName{Schema: "public", Name: "a"}) ||
		!slices.Equal(p.Tables[0].Columns, []string{"id", "v"}) || p.Tables[0].ColumnList {
		t.Errorf("publication %+v", p)
	}
	s, err := pg.LoadSlot(t.Context(), conn, "pg_test_slot")
	if err != nil {
		t.Fatal(err)
	}
	if s.Plugin != "pgoutput" || s.Type != "logical" || s.Active || s.Lost() || s.ConfirmedFlushLSN == 0 || s.RestartLSN > s.ConfirmedFlushLSN || s.WALStatus != "reserved" {
		t.Errorf("slot %+v", s)
	}
	exec(t, conn, `select pg_drop_replication_slot('pg_test_slot')`)
}

func TestLoadRole(t *testing.T) {
	t.Parallel()
	dsn := dsn(t)
	admin := connect(t, dsn)
	exec(t, admin, `create role role_plain login`, `create role role_least login replication`,
		`grant set on parameter session_replication_role to role_least`)
	for _, f := range pg.OriginFunctions() {
		exec(t, admin, `do $$ declare f regprocedure; begin for f in select oid from pg_proc where proname = '`+f+`' loop
			execute format('grant execute on function %s to role_least', f); end loop; end $$`)
	}
	for _, tt := range []struct {
		user string
		want pg.Role
	}{
		{"role_plain", pg.Role{Name: "role_plain"}},
		{"role_least", pg.Role{Name: "role_least", Replication: true, SetReplicationRole: true, Origins: true}},
	} {
		for how, conn := range map[string]pg.Beginner{"as itself": connect(t, as(dsn, tt.user)), "by admin": admin} {
			name := ""
			if strings.HasPrefix(how, "by") {
				name = tt.user
			}
			got, err := pg.LoadRole(t.Context(), conn, name)
			if err != nil {
				t.Fatal(err)
			}
			if *got != tt.want {
				t.Errorf("%s %s: %+v, want %+v", tt.user, how, *got, tt.want)
			}
		}
	}
	if r, err := pg.LoadRole(t.Context(), admin, "nobody"); r != nil || err != nil {
		t.Errorf("unknown role: %+v, %v", r, err)
	}
	exec(t, admin, `create table public.tp (a int)`, `grant select on public.tp to role_plain`)
	tb, err := pg.LoadTable(t.Context(), admin, "public", "tp")
	if err != nil {
		t.Fatal(err)
	}
	missing, err := pg.TablePrivileges(t.Context(), admin, "role_plain", tb.OID, []string{"SELECT", "INSERT"})
	if err != nil || !slices.Equal(missing, []string{"INSERT"}) {
		t.Errorf("missing %v, %v", missing, err)
	}
}
