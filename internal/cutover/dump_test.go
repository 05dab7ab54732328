package cutover

import (
	"strings"
	"testing"
)

func TestMajorOf(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]int{"pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n": 15, "pg_dump (PostgreSQL) 18beta1": 18, "pg_dump (PostgreSQL) 9.6.1": 9, "something else": 0} {
		if got := majorOf(said); got != want {
			t.Errorf("%q: %d, want %d", said, got, want)
		}
	}
}

// What pgwaltz has made, what the destination has, and what is said of extensions is left out, by what it is and not by its name.
func TestChosen(t *testing.T) {
	t.Parallel()
	list := `;
; Archive created at 2026-01-01 00:00:00 UTC
;     dbname: shop
;
7; 2615 16384 SCHEMA - ext boss
2; 3079 16385 EXTENSION - citext
3400; 0 0 COMMENT - EXTENSION citext
215; 1259 16390 TABLE public pgwaltz_mine keeper
3300; 2620 16500 TRIGGER public item zzzz_pgwaltz_restore keeper
3301; 2620 16501 TRIGGER public item zzzz_pgwaltz_too keeper
`
	kept, n := chosen(list, map[string]bool{"2620 16500": true, "2615 16384": true})
	want := "2; 3079 16385 EXTENSION - citext\n215; 1259 16390 TABLE public pgwaltz_mine keeper\n3301; 2620 16501 TRIGGER public item zzzz_pgwaltz_too keeper\n"
	if kept != want || n != 3 {
		t.Errorf("%d: %s", n, kept)
	}
}

// A dump of a newer program is understood by an older server: what only psql understands, and settings that it does not know, are left out. What a function's body
// holds stays.
func TestPlain(t *testing.T) {
	t.Parallel()
	const body = "-- Name: f(); Type: FUNCTION; Schema: public; Owner: keeper\n--\n\nCREATE FUNCTION public.f() RETURNS void\n    LANGUAGE plpgsql\n    AS $$ begin\nSET transaction_timeout = 0;\n" +
		"\\restrict inBody\n-- Dumped by nobody\nend $$;\n\n\n" + "--\n-- Name: item; Type: TABLE; Schema: public; Owner: keeper\n--\n\nCREATE TABLE public.item (\n    id integer\n);\n\n\n"
	text := "--\n-- PostgreSQL database dump\n--\n\n\\restrict aB3\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 18.0\n\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\n\n--\n" +
		body + "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict aB3\n\n"
	got := plain(text, map[string]bool{"statement_timeout": true})
	want := "--\n-- PostgreSQL database dump\n--\n\n\n\nSET statement_timeout = 0;\n\n--\n" + body + "--\n-- PostgreSQL database dump complete\n--\n\n\n"
	if got != want {
		t.Errorf("%s\nis: %s", difference(want, got), got)
	}
	if at := place(got, int32(strings.Index(got, "CREATE TABLE"))); at != "Name: item; Type: TABLE; Schema: public; Owner: keeper" {
		t.Error(at)
	}
	if d := difference("a\nb", "a\nc"); !strings.Contains(d, `"b" at the source`) {
		t.Error(d)
	}
	if d := difference("a", "a\nc"); d != "only at the destination: c" {
		t.Error(d)
	}
}
