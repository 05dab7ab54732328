package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// kind is a type of columns. spell writes value n, 0 to 9, in one of the spellings that are equal; values of
// different n are not equal.
type kind struct {
	typ   string
	key   bool // has a B-tree operator class, so that it can be a key
	bits  int  // numbers of values that are not equal, if not 10
	spell func(r *rand.Rand, n int) string
}

func plain(format string) func(*rand.Rand, int) string {
	return func(_ *rand.Rand, n int) string { return fmt.Sprintf(format, n) }
}

// anyOf writes n by one of several formats.
func anyOf(formats ...string) func(*rand.Rand, int) string {
	return func(r *rand.Rand, n int) string {
		f := formats[r.IntN(len(formats))]
		return fmt.Sprintf(f, anys(n, strings.Count(f, "%"))...)
	}
}

func anys(n, count int) []any {
	out := make([]any, count)
	for i := range out {
		out[i] = n
	}
	return out
}

// kindsSQL makes the types that are not PostgreSQL's own.
const kindsSQL = `create extension if not exists citext;
create extension if not exists hstore;
create schema odd;
create collation public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create type odd."Mood Ring" as enum ('m0','m1','m2','m3','m4','m5','m6','m7','m8','m9');
create domain odd.amount as numeric check (value >= 0);
create type odd.pair as (a int, b text);
`

func kinds() []kind {
	return []kind{
		{typ: "smallint", key: true, spell: plain("%d")},
		{typ: "integer", key: true, spell: plain("%d")},
		{typ: "bigint", key: true, spell: plain("%d")},
		{typ: "numeric", key: true, spell: anyOf("'%d'", "'%d.0'", "'%d.000'")},
		{typ: "numeric(9,2)", key: true, spell: anyOf("'%d'", "'%d.0'")},
		{typ: "double precision", key: true, spell: func(r *rand.Rand, n int) string {
			if n == 0 {
				return []string{"'0'", "'-0'"}[r.IntN(2)]
			}
			return []string{fmt.Sprintf("'%d'", n), "'NaN'"}[n/9]
		}},
		{typ: "real", spell: plain("'%d.5'")},
		{typ: "text", key: true, spell: plain("'k %d'")},
		{typ: "text COLLATE public.ci", key: true, spell: anyOf("'Key%d'", "'kEY%d'", "'key%d'")},
		{typ: "character varying(20)", key: true, spell: plain("'k''%d'")},
		{typ: "character(8)", key: true, spell: anyOf("'c%d'", "'c%d   '")},
		{typ: "name", key: true, spell: plain("'n%d'")},
		{typ: "citext", key: true, spell: anyOf("'Ci%d'", "'cI%d'")},
		{typ: "uuid", key: true, spell: plain("md5('%d')::uuid")},
		{typ: "date", key: true, spell: plain("date '2024-01-01' + %d")},
		{typ: "timestamp without time zone", key: true, spell: plain("'2024-02-03 0%d:00:00.5'")},
		{typ: "timestamp with time zone", key: true, spell: anyOf("'2024-02-03 0%d:00+00'", "'2024-02-03 1%d:00+10'")},
		{typ: "interval", key: true, spell: func(r *rand.Rand, n int) string {
			return []string{fmt.Sprintf("'%d days'", n), fmt.Sprintf("'%d hours'", 24*n)}[r.IntN(2)]
		}},
		{typ: "bytea", key: true, spell: plain(`'\x0%d00ff'`)},
		{typ: "boolean", bits: 2, spell: func(_ *rand.Rand, n int) string { return fmt.Sprint(n%2 == 0) }},
		{typ: "inet", key: true, spell: anyOf("'10.0.0.%d'", "'10.0.0.%d/32'")},
		{typ: "macaddr", key: true, spell: plain("'08:00:2b:01:02:0%d'")},
		{typ: `odd."Mood Ring"`, key: true, spell: plain("'m%d'")},
		{typ: "odd.amount", key: true, spell: anyOf("'%d'", "'%d.00'")},
		{typ: "int4range", key: true, spell: func(r *rand.Rand, n int) string {
			return []string{fmt.Sprintf("'[%d,%d]'", n, n), fmt.Sprintf("'[%d,%d)'", n, n+1)}[r.IntN(2)]
		}},
		{typ: "text[]", key: true, spell: plain(`array['a"%d', null, '']`)},
		{typ: "jsonb", key: true, spell: anyOf(`'{"a": %d}'`, `'{"a": %d.0}'`)},
		{typ: "bit(8)", key: true, spell: func(_ *rand.Rand, n int) string { return fmt.Sprintf("b'%08b'", n) }},
		{typ: "bit varying(12)", key: true, spell: func(_ *rand.Rand, n int) string { return fmt.Sprintf("b'1%b'", n) }},
		{typ: "oid", key: true, spell: plain("%d")},
		{typ: "odd.pair", key: true, spell: plain("row(%d, 'x')::odd.pair")},
		{typ: "json", spell: anyOf(`'{"a": %d}'`, `'{"a":   %d}'`)},
		{typ: "xml", spell: plain("'<a>%d</a>'")},
		{typ: "point", spell: plain("'(1,%d)'")},
		{typ: "box", spell: plain("'(1,2),(3,%d)'")},
		{typ: "tsvector", spell: plain("'a%d b:3'")},
		{typ: "money", spell: plain("'%d.25'")},
		{typ: "time with time zone", spell: plain("'0%d:00+02'")},
		{typ: "integer[]", spell: plain("'[0:1]={%d,null}'")},
		{typ: "hstore", spell: plain(`'a=>%d, b=>NULL'`)},
		{typ: "regclass", spell: plain("'pg_class'::regclass::oid::int + 0*%d")},
	}
}

// large is a value that is stored out of line.
func large(r *rand.Rand) string {
	return fmt.Sprintf("(select string_agg(md5('%d' || i), '') from generate_series(1, %d) i)", r.IntN(50), 80+r.IntN(300))
}

// byType finds the kind of a column, as the catalog calls its type.
func byType(all []kind) map[string]kind {
	out := map[string]kind{}
	for _, k := range all {
		name, _, _ := strings.Cut(k.typ, " COLLATE ")
		if _, ok := out[name]; !ok || name != k.typ {
			out[k.typ] = k
		}
		if _, ok := out[name]; !ok {
			out[name] = k
		}
	}
	return out
}
