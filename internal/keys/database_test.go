package keys

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }

// region makes a database with tables of all kinds of keys.
func region(t *testing.T, name string, rows ...string) (*Database, *pgx.Conn) {
	t.Helper()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create extension citext schema public", "create collation public.nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
		"create schema pgwaltz", tombstone.Schema, parked.Schema, pgstore.Schema,
		"create table pgwaltz.node (region text, cluster text, created_at timestamptz default now())", "insert into pgwaltz.node values ('"+name+"', 'main')",
		`create table public."Od.d" (b text, a numeric, primary key (a, b))`, "create table public.ci (k public.citext primary key)", "create table public.nd (k text collate public.nd primary key)",
		"create table public.iv (k interval primary key)", "create table public.by (k bytea primary key)", "create table public.parts (k int primary key, v text) partition by range (k)",
		"create table public.parts1 partition of public.parts for values from (0) to (100000)", "create table public.parent (k int primary key)", "create table public.child () inherits (public.parent)",
		"create table public.bare (v text)", "alter table public.bare replica identity full", "create table public.part (k int primary key)",
		`create publication w for table public."Od.d", public.ci, public.nd, public.iv, public.by, public.parts, only public.parent, public.bare, public.part where (k < 10) with (publish_via_partition_root = true)`)
	pgtest.Exec(t, c, rows...)
	d, err := Open(t.Context(), c, "w")
	if err != nil {
		t.Fatal(err)
	}
	return d, c
}

// TestEveryKindOfKey: equal values in two spellings are one key, children are none, and what
// only one region has is listed with a statement that deletes it.
func TestEveryKindOfKey(t *testing.T) {
	t.Parallel()
	both := []string{
		"insert into public.parts select g, '' from generate_series(1, 5000) g", "insert into public.parent values (1)",
		`insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, lsn) values ('public.ci', '["gone"]', 0, 3, 0, '0/1')`,
	}
	eu, _ := region(t, "eu", append(both, `insert into public."Od.d" values ('x', 1.50), ('o''neil "\', 2)`, "insert into public.ci values ('Bob'), ('only')", "insert into public.nd values ('STRASSE')",
		"insert into public.iv values ('1 mon')", `insert into public.by values ('\x00ff')`, "insert into public.child values (7)", "insert into public.part values (3), (11)")...)
	us, conn := region(t, "us", append(both, `insert into public."Od.d" values ('x', 1.5)`, "insert into public.ci values ('BOB'), ('GONE')", "insert into public.nd values ('strasse'), ('x')",
		"insert into public.iv values ('30 days'), ('2 hours')", `insert into public.by values ('\x01')`, "insert into public.parts values (70000, '')", "insert into public.part values (3), (12)")...)
	want := []string{
		`public."Od.d" [2 o'neil "\] eu n`,
		`public.by [\x00ff] eu n`, `public.by [\x01] us n`, `public.ci [GONE] us t0/3/1970-01-01T00:00:00.000000Z`, `public.ci [only] eu n`,
		`public.iv [02:00:00] us n`, `public.nd [x] us n`, `public.parts [70000] us n`,
	}
	compare := func() []string {
		var got []string
		c := Comparison{Here: eu, There: us}
		r, err := c.Run(func(d Difference) error {
			got = append(got, fmt.Sprintf("%s %v %s %c%s", d.Table, d.Values, d.In, d.Other, d.Note))
			if d.In == "us" {
				sql, err := us.DeleteSQL(d.Table, d.Entry)
				if err != nil {
					t.Fatal(err)
				}
				if tag, err := conn.Exec(t.Context(), sql); err != nil || tag.RowsAffected() != 1 {
					t.Errorf("%s: %v, %v", sql, tag, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.Tables != 8 {
			t.Errorf("%d tables", r.Tables)
		}
		return got
	}
	if got := compare(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := compare(); len(got) != 3 {
		t.Errorf("after the statements: %v", got)
	}
	if len(eu.Left) != 1 {
		t.Errorf("left out: %v", eu.Left)
	}
}

// TestWhatIsSettledMeanwhileIsNoDifference: changes are on their way while the lists are made.
func TestWhatIsSettledMeanwhileIsNoDifference(t *testing.T) {
	t.Parallel()
	eu, a := region(t, "eu", "insert into public.parts values (1, ''), (2, ''), (3, '')")
	us, b := region(t, "us", "insert into public.parts values (3, ''), (4, '')")
	var got []string
	c := Comparison{Here: eu, There: us, InStep: func() error {
		pgtest.Exec(t, b, "insert into public.parts values (1, '')") // has come
		pgtest.Exec(t, a, "delete from public.parts where k = 2")    // is gone
		return nil
	}}
	if _, err := c.Run(func(d Difference) error { got = append(got, d.Key+d.In); return nil }); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != `["4"]us` {
		t.Errorf("got %v", got)
	}
}

func TestInStep(t *testing.T) {
	t.Parallel()
	eu, a := region(t, "eu")
	us, b := region(t, "us")
	insert := `insert into pgwaltz.checkpoint (origin, system_id, timeline, slot, incarnation, frame_no, end_lsn, chain, stream_seq) values ('%s', '1', 1, 's', 1, 1, '%s', decode(repeat('00', 32), 'hex'), 1)`
	pgtest.Exec(t, b, fmt.Sprintf(insert, "eu", "FFFF/0"))
	pgtest.Exec(t, a, fmt.Sprintf(insert, "us", "0/1"))
	if err := InStep(t.Context(), eu, us, 300*time.Millisecond); !errors.Is(err, ErrNotInStep) || !strings.Contains(err.Error(), "eu has not applied everything of us") {
		t.Errorf("got %v", err)
	}
	pgtest.Exec(t, a, "update pgwaltz.checkpoint set end_lsn = 'FFFF/0'")
	if err := InStep(t.Context(), eu, us, time.Minute); err != nil {
		t.Error(err)
	}
}
