package statement

import "testing"

func TestTogether(t *testing.T) {
	t.Parallel()
	got := Together([]string{`insert into "a$1" select u.p1 from unnest($1::text[], $2::"x$2"[]) as u returning 1`, `delete from "b" using unnest($1::int4[]) as u returning u.ord`})
	want := `with s0 as (insert into "a$1" select u.p1 from unnest($1::text[], $2::"x$2"[]) as u returning 1), ` +
		`s1 as (delete from "b" using unnest($3::int4[]) as u returning u.ord) select (select count(*) from s0), (select count(*) from s1)`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
