package wal

import (
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	rel := func(forms ...Form) *Relation {
		r := &Relation{Identity: IdentityFull, Columns: []Column{{Name: "other"}}}
		for i, f := range forms {
			r.Columns = append(r.Columns, Column{Form: f})
			r.PrimaryKey = append([]int{i + 1}, r.PrimaryKey...) // in another order than the columns
		}
		return r
	}
	row := func(values ...string) Tuple {
		out := Tuple{{Kind: Text, Bytes: []byte("x")}}
		for _, v := range values {
			out = append(out, Value{Kind: Text, Bytes: []byte(v)})
		}
		return out
	}
	for name, c := range map[string]struct {
		rel  *Relation
		row  Tuple
		want bool
	}{
		"one":         {rel(FormPlain), row("42"), true},
		"two":         {rel(FormPlain, FormPadded), row(`a"b\c`+"\n", "ü  "), true},
		"numeric":     {rel(FormNumeric), row("1.500"), true},
		"citext":      {rel(FormLower), row("bob"), true},
		"hash":        {rel(FormPlain, FormHash), row("1", "1 mon"), false},
		"too long":    {rel(FormPlain), row(strings.Repeat("x", 600)), false},
		"not UTF-8":   {rel(FormPlain), row("\xe9"), false},
		"escaped NUL": {rel(FormPlain), row("\x01"), true},
	} {
		text := string(c.rel.AppendKey(nil, c.row))
		got, ok := c.rel.ParseKey(text)
		if ok != c.want {
			t.Errorf("%s: %s is read: %v", name, text, ok)
			continue
		}
		if !ok {
			continue
		}
		if again := string(c.rel.AppendKey(nil, got)); again != text || got[0].Kind != Null {
			t.Errorf("%s: %s came back as %s", name, text, again)
		}
	}
	for _, bad := range []string{"", "[]", `["1","2"]`, "[null]", "[1]", "#00", `{"a":"b"}`, `["1"] `} {
		if row, ok := rel(FormPlain).ParseKey(bad); ok {
			t.Errorf("%q is read as %v", bad, row)
		}
	}
}
