package config

import (
	"testing"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Size{"1GiB": 1 << 30, "900KiB": 900 << 10, "1.5MiB": 3 << 19, "4096": 4096, "4096B": 4096, "2 MB": 2e6, "0": 0} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", in, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%q comes back as %d, %v", got.String(), back, err)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "1XB", "NaN", "9999999TiB", "1e30", "1 2"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d", in, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, schema, table string
		want                   bool
	}{
		{"*.*", "a", "b", true},
		{"public.users", "public", "users", true},
		{"public.users", "public", "Users", false},
		{"public.*_tmp", "public", "a2_tmp", true},
		{"public.*_tmp", "public", "a2_tmpx", false},
		{"public.a*b*c", "public", "a1b2b3c", true},
		{"public.a?c", "public", "aéc", true},
		{`"a.b"."c""d*"`, "a.b", `c"d*`, true},
		{`"a.b"."c""d*"`, "a.b", `c"dx`, false},
		{`app."*"`, "app", "*", true},
		{`app."*"`, "app", "x", false},
	} {
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if got := p.Match(tt.schema, tt.table); got != tt.want {
			t.Errorf("%s on %s.%s = %v", tt.pattern, tt.schema, tt.table, got)
		}
	}
	for _, in := range []string{"", "a", "a.", ".b", "a.b.c", `"a.b`, `"a"x.b`, "a.b;drop", "a. b"} {
		if _, err := ParsePattern(in); err == nil {
			t.Errorf("ParsePattern(%q) succeeds", in)
		}
	}
	if !MustPattern(`a."*"`).Exact() || MustPattern("a.*").Exact() || !MustPattern("a.*").WholeSchemas() || MustPattern("a.b*").WholeSchemas() {
		t.Error("Exact or WholeSchemas")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("cluster: a\npeers: [{region: us}]\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("tables: {rules: [{match: a.b}]}\n---\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		c, err := parse("f.yaml", text, nil)
		if err == nil {
			_, err = c.Render()
		}
		if err != nil {
			_ = err.Error()
		}
	})
}
