package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// motley has what the five schemas have, and some things that they lack: every kind of type, checks, a
// circle of foreign keys, a column version that is none, tables without a key, and odd names.
const motley = `
create type mood as enum ('good', 'bad');
create domain short as varchar(5) check (value <> '');
create sequence number_seq;
create table parent (id int primary key default nextval('number_seq'), name varchar(40) not null check (name = lower(name)), kind text not null check (kind in ('One', 'Two')), up int references parent);
create unique index on parent (lower(name));
create table "Child.of ""it""" ("Id" bigint generated always as identity primary key, "select" int not null references parent on delete cascade, version text, at timestamptz, big text,
  m mood not null, d short, f real, n numeric(6,2), b boolean, by bytea, u uuid, j jsonb, ip inet, t time, i interval, bits bit(7), a int[], twice real generated always as (f * 2) stored);
create table ring_a (id int primary key, b int);
create table ring_b (id int primary key, a int not null references ring_a);
alter table ring_a add foreign key (b) references ring_b;
create table link (parent int references parent, other int, primary key (parent, other));
create table bare (n int, what text);
create table owned (parent int references parent on delete cascade, what text);
create table parts (id int primary key, v text) partition by range (id);
create table parts_1 partition of parts for values from (0) to (1000);
create table parts_2 partition of parts for values from (1000) to (100000);`

// The whole trial, with a schema that needs no package.
func TestTrial(t *testing.T) {
	t.Parallel()
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	var out bytes.Buffer
	r := &trial{layout: "one", role: "least", identity: "full", out: &out}
	if err := r.run(t.Context(), []source{{pack{name: "motley", deb: "motley", least: 8}, motley}}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), " tables are equal") {
		t.Errorf("said:\n%s", out.String())
	}
}

// A package that cannot be had is named, with what to do.
func TestPackageIsMissing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, _, err := fetch(t.Context(), options{packages: dir, only: []string{"pdns"}})
	if err == nil || !strings.Contains(err.Error(), "get package pdns-backend-pgsql") || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("said: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "pdns-backend-pgsql"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fetch(t.Context(), options{packages: dir, only: []string{"pdns"}}); err == nil || !strings.Contains(err.Error(), "has no file") {
		t.Errorf("said: %v", err)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"-layout two": 2, "-role nobody": 2, "more": 2, "-h": 0} {
		var out, errs bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), &out, &errs); got != want {
			t.Errorf("%s: exit code %d, want %d: %s", args, got, want, errs.String())
		}
	}
}
