package wal

import "testing"

func TestRelationNameIsUnambiguous(t *testing.T) {
	t.Parallel()
	names := []RelationName{
		{"public", "acct"}, {"x.y", "z"}, {"x", "y.z"}, {"Odd", "name"}, {`q"`, `"`}, {`a"."b`, "c"}, {"a", `b"."c`}, {"", "x"}, {"x", ""}, {"ü", "$1_"},
	}
	seen := map[string]RelationName{}
	for _, n := range names {
		s := n.String()
		if other, ok := seen[s]; ok {
			t.Errorf("%#v and %#v are both %s", n, other, s)
		}
		seen[s] = n
		if got, ok := ParseRelationName(s); !ok || got != n {
			t.Errorf("%s is read as %#v, %v; want %#v", s, got, ok, n)
		}
	}
	if s := (RelationName{"public", "acct"}).String(); s != "public.acct" {
		t.Errorf("an ordinary name is printed as %s", s)
	}
	for _, bad := range []string{"", "acct", "a.b.c", `"a.b`, `"a"b.c`, ".x", "x.", "A.b", `"a"."b"c`} {
		if got, ok := ParseRelationName(bad); ok {
			t.Errorf("%q is read as %#v", bad, got)
		}
	}
}
