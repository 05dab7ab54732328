package rowkey_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/wal"
)

const types = `create extension citext; create extension ltree; create extension hstore; create extension isn; create extension cube;
create collation nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create type mood as enum ('sad', 'Sad', 'glad');
create type pt as (x int, y text);
create type price as (amount numeric, unit text);
create type nrange as range (subtype = float8);
create domain amount as numeric check (value > -100000);
create domain code as citext;
create domain codes as numeric[];`

// The collations under which keys are taken for plain without a look are deterministic.
func TestCollationsOfTheServer(t *testing.T) {
	t.Parallel()
	var n int
	if err := connect(t).QueryRow(t.Context(), `select count(*) from pg_catalog.pg_collation where oid in (100, 950, 951) and collisdeterministic and collname in ('default', 'C', 'POSIX')`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 3 {
		t.Errorf("%d of default, C and POSIX are what they are taken for", n)
	}
}

// TestForms holds what the catalog of a real server says of key columns against what it should.
func TestForms(t *testing.T) {
	t.Parallel()
	conn := connect(t, types)
	for _, tt := range []struct {
		typ  string
		want wal.Form
	}{
		{"int", wal.FormPlain}, {"text", wal.FormPlain}, {"varchar(9)", wal.FormPlain}, {"uuid", wal.FormPlain}, {"bool", wal.FormPlain},
		{"timestamptz", wal.FormPlain}, {"date", wal.FormPlain}, {"bytea", wal.FormPlain}, {"inet", wal.FormPlain}, {`"char"`, wal.FormPlain},
		{"mood", wal.FormPlain}, {"ltree", wal.FormPlain}, {"isbn13", wal.FormPlain}, {"hstore", wal.FormPlain}, {"int[]", wal.FormPlain},
		{"mood[]", wal.FormPlain}, {"int4range", wal.FormPlain}, {"int8multirange", wal.FormPlain}, {"pt", wal.FormPlain}, {"ltree[]", wal.FormPlain},
		{"varbit", wal.FormPlain}, {"timetz", wal.FormPlain}, {"xid8", wal.FormPlain}, {"name", wal.FormPlain},
		{"numeric", wal.FormNumeric}, {"numeric(9,2)", wal.FormNumeric}, {"amount", wal.FormNumeric}, {"float8", wal.FormFloat}, {"real", wal.FormFloat},
		{"char(5)", wal.FormPadded}, {"citext", wal.FormLower}, {"code", wal.FormLower},
		{"text collate nd", wal.FormHash}, {"varchar collate nd", wal.FormHash}, {"char(5) collate nd", wal.FormHash}, {"interval", wal.FormHash},
		{"jsonb", wal.FormHash}, {"numeric[]", wal.FormHash}, {"codes", wal.FormHash}, {"price", wal.FormHash}, {"numrange", wal.FormHash},
		{"nummultirange", wal.FormHash}, {"nrange", wal.FormHash}, {"text[] collate nd", wal.FormHash}, {"citext[]", wal.FormHash}, {"interval[]", wal.FormHash},
		{"cube", wal.FormUnknown}, {"citext collate nd", wal.FormUnknown},
	} {
		t.Run(tt.typ, func(t *testing.T) {
			for _, s := range []string{"set search_path = public", "drop table if exists k", "create table k (k " + tt.typ + " primary key)", "set search_path = ''"} {
				if _, err := conn.Exec(t.Context(), s); err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			k, err := rowkey.Load(t.Context(), conn, wal.RelationName{Schema: "public", Name: "k"})
			if err != nil {
				t.Fatal(err)
			}
			if len(k.Columns) != 1 || k.Columns[0].Form != tt.want {
				t.Errorf("got %+v, want %s", k.Columns, tt.want)
			}
		})
	}
}

// TestCanonicalIsEquality: two values have the same key text exactly when the server's own
// operator, in an index of the key, calls them equal.
func TestCanonicalIsEquality(t *testing.T) {
	t.Parallel()
	conn := connect(t, types)
	r := rand.New(rand.NewPCG(5, 7))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	number := func() string {
		return pick("", "-") + pick("0", "1", "10", "100", "7") + pick("", ".", ".0", ".50", ".5", ".500", ".05", "e1", "e-2")
	}
	word := func() string {
		out := ""
		for range r.IntN(4) {
			out += pick("a", "A", "é", "É", "e\u0301", "ß", "ss", "SS", "İ", "i", "ı", "Σ", "ς", "σ", " ", "ǆ", "ǅ", "ﬀ", "\u00a0", "日")
		}
		return out
	}
	float := func() string {
		return pick("-0", "0", "0.0", "-0.0", "1", "1.0", "1e0", "NaN", "nan", "Infinity", "-Infinity", "0.1", "1e-7", "0.0000001")
	}
	period := func() string {
		return pick("1 mon", "30 days", "720 hours", "-1 mon", "1 day", "24:00:00", "23:59:60", "1 year", "12 mons", "360 days", "0", "1 mon -30 days", "86400 seconds")
	}
	for _, tt := range []struct {
		typ   string
		value func() string
	}{
		{"int", func() string { return pick("1", "01", "+1", " 1 ", "2", "-0", "0") }},
		{"numeric", func() string { return pick(number(), "NaN", "Infinity", "inf") }},
		{"numeric(9,2)", number},
		{"amount", number},
		{"float8", float},
		{"float4", float},
		{"text", word},
		{"char(8)", word},
		{"citext", word},
		{"code", word},
		{"text collate nd", word},
		{"interval", period},
		{"interval[]", func() string { return `{"` + period() + `"}` }},
		{"timestamptz", func() string {
			return pick("2024-01-01 00:00+00", "2024-01-01 01:00+01", "2024-01-01", "infinity", "2023-12-31 24:00:00+00")
		}},
		{"timetz", func() string { return pick("12:00+00", "13:00+01", "12:00:00.0+00", "24:00+00", "00:00+00") }},
		{"inet", func() string { return pick("10.0.0.1", "10.0.0.1/32", "10.0.0.1/24", "::1", "0:0::1") }},
		{"jsonb", func() string {
			return pick(`1`, `1.0`, `"a"`, `{"a":1,"b":2}`, `{"b":2.00,"a":1}`, `{"a":1,"a":1.0,"b":2}`, `[1.0]`, `[1]`, `null`, `[]`, `-1`, `[[1]]`, `{"1":1}`)
		}},
		{"numeric[]", func() string { return pick("{1.0,", "{1,", "{-1.00,") + pick("2}", "2.0}", "-2}", "20}", "0.2}") }},
		{"codes", func() string { return pick("{1}", "{1.0}", "{-1}", "[0:0]={1}", "{{1.00}}", "{{1}}") }},
		{"text[] collate nd", func() string { return pick("{a}", "{A}", "{{a}}", "{{A}}", "{b}", "[0:0]={a}") }},
		{"citext[]", func() string { return pick("{a}", "{A}", "{{a}}", "{b}", "{É}", "{é}", "{NULL}") }},
		{"float8[]", func() string { return pick("{-0}", "{0}", "{{0}}", "{1.0}", "{1e-7}", "{-1}", "{NaN}") }},
		{"int[]", func() string { return pick("{1,2}", "{01, 2}", "[0:1]={1,2}", "{{1},{2}}", "{}", "{NULL}") }},
		{"numrange", func() string { return pick("[1,2)", "[1.0,2.00)", "[1,2]", "empty", "[2,2)", "(,1]", "(,1.0]") }},
		{"nummultirange", func() string { return pick("{[1,2)}", "{[1.0,2.00)}", "{}", "{[1,1)}") }},
		{"nrange", func() string { return pick("[0,1)", "[-0,1)", "[0.0,1.0)", "empty") }},
		{"int4range", func() string { return pick("[1,2)", "[1,1]", "(0,2)", "empty", "[1,1)") }},
		{"price", func() string {
			return "(" + pick("1.5", "1.50", "-1.5", "15", "-1.500", "0", "-0.0") + "," + pick("a", "A", `"a"`) + ")"
		}},
		{"pt", func() string { return pick("(1,a)", "(01,a)", `(1,"a")`, "(1,A)", "(,)") }},
		{"mood", func() string { return pick("sad", "Sad", "glad") }},
		{"ltree", func() string { return pick("a.b", "A.b", "a.B", "a") }},
		{"hstore", func() string { return pick("a=>1,b=>2", "b=>2, a=>1", "a=>NULL", "a=>1") }},
		{"isbn13", func() string { return pick("978-0-393-04002-9", "9780393040029", "9781234567897") }},
	} {
		t.Run(tt.typ, func(t *testing.T) {
			for _, s := range []string{"set search_path = public", "drop table if exists k", "create table k (k " + tt.typ + " primary key)", "set search_path = ''"} {
				if _, err := conn.Exec(t.Context(), s); err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			name := wal.RelationName{Schema: "public", Name: "k"}
			k, err := rowkey.Load(t.Context(), conn, name)
			if err != nil {
				t.Fatal(err)
			}
			rel := &wal.Relation{Schema: "public", Name: "k", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "k", OID: k.Columns[0].OID, Key: true}}}
			k.Describe(rel)
			if err := conn.DeallocateAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			equal := 0
			for range 150 {
				a, b := tt.value(), tt.value()
				// The WAL holds what the output function makes of a value. That is the text we see.
				var outA, outB string
				var inserted int
				if _, err := conn.Exec(t.Context(), "delete from public.k"); err != nil {
					t.Fatal(err)
				}
				insert := fmt.Sprintf("insert into public.k values ($1::text::%s) on conflict do nothing returning pg_catalog.concat(k)", k.Columns[0].Param.Type)
				if err := conn.QueryRow(t.Context(), insert, a).Scan(&outA); err != nil {
					t.Fatalf("%s: %v", a, err)
				}
				if err := conn.QueryRow(t.Context(), fmt.Sprintf("select pg_catalog.concat($1::text::%s), 1", k.Columns[0].Param.Type), b).Scan(&outB, &inserted); err != nil {
					t.Fatalf("%s: %v", b, err)
				}
				if tt.typ == "numeric(9,2)" || tt.typ == "char(8)" {
					if err := conn.QueryRow(t.Context(), fmt.Sprintf("select pg_catalog.concat($1::text::%s)", tt.typ), b).Scan(&outB); err != nil {
						t.Fatalf("%s: %v", b, err)
					}
				}
				tag, err := conn.Exec(t.Context(), insert, b)
				if err != nil {
					t.Fatalf("%s: %v", b, err)
				}
				same := tag.RowsAffected() == 0
				changes := []*wal.Change{
					{Op: wal.Insert, Relation: rel, New: wal.Tuple{{Kind: wal.Text, Bytes: []byte(outA)}}},
					{Op: wal.Delete, Relation: rel, Old: wal.Tuple{{Kind: wal.Text, Bytes: []byte(outB)}}},
				}
				if rel.Asks() {
					if err := rowkey.Fill(t.Context(), conn, k, rel, changes); err != nil {
						t.Fatal(err)
					}
				}
				ka, kb := string(changes[0].AppendKey(nil)), string(changes[1].AppendKey(nil))
				if (ka == kb) != same {
					t.Errorf("%s %q (%q) and %q (%q): keys %s and %s, but the index says equal: %v", tt.typ, a, outA, b, outB, ka, kb, same)
				}
				if same {
					equal++
				}
			}
			if equal == 0 {
				t.Error("no two values were equal: the test says nothing")
			}
		})
	}
}

// TestKeyOfIndex: with replica identity USING INDEX the index names the rows, with its own order
// of columns, collation and operators.
func TestKeyOfIndex(t *testing.T) {
	t.Parallel()
	conn := connect(t, types, `create table t (id int primary key, a text not null, b citext not null);
create unique index t_ba on t (b, a collate nd);
alter table t replica identity using index t_ba;
create table part (id int, k int, primary key (k, id) deferrable) partition by list (id);
create table bare (id int);
create table gen (a int, k int generated always as (a * 2) stored primary key);
create type odd as (x int); create function o(text) returns odd language sql immutable as 'select row(0)::public.odd'; create cast (text as odd) with function o(text);
create domain odder as odd;
create table casts (k odder primary key)`)
	load := func(name string) *rowkey.Key {
		t.Helper()
		k, err := rowkey.Load(t.Context(), conn, wal.RelationName{Schema: "public", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := load("t")
	if len(k.Columns) != 2 || k.Columns[0].Name != "b" || k.Columns[0].Form != wal.FormLower || k.Columns[0].Param.Equal != "public.=" ||
		k.Columns[1].Name != "a" || k.Columns[1].Form != wal.FormHash || k.Columns[1].Param.Collation != "public.nd" || k.Columns[1].Param.Equal != "" {
		t.Errorf("got %+v", k)
	}
	k = load("part")
	if len(k.Columns) != 2 || k.Columns[0].Name != "k" || !k.Deferrable || !k.Partitioned {
		t.Errorf("got %+v", k)
	}
	if k = load("bare"); len(k.Columns) != 0 {
		t.Errorf("got %+v", k)
	}
	if k = load("nowhere"); len(k.Columns) != 0 {
		t.Errorf("got %+v", k)
	}
	if k = load("casts"); len(k.Columns) != 1 || !k.Columns[0].Param.Input {
		t.Errorf("got %+v", k)
	}
	k = load("gen")
	rel := &wal.Relation{Schema: "public", Name: "gen", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a", OID: 23, Key: true}}}
	k.Describe(rel)
	if len(rel.Columns) != 2 || !rel.Columns[1].Computed || rel.Sent() != 1 || len(rel.PrimaryKey) != 1 || rel.PrimaryKey[0] != 1 {
		t.Errorf("got %+v", rel)
	}
}

// TestNotToKnowIsAnError: a look that fails must not read as a table without a key.
func TestNotToKnowIsAnError(t *testing.T) {
	t.Parallel()
	conn := connect(t, "create table t (id int primary key)")
	conn.Close(t.Context())
	if k, err := rowkey.Load(t.Context(), conn, wal.RelationName{Schema: "public", Name: "t"}); err == nil {
		t.Errorf("got %+v", k)
	}
}
