package preflight

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/wal"
)

func TestManyFindingsOfOneKindAreOneLine(t *testing.T) {
	t.Parallel()
	var fs Findings
	fs.add(Error, "wal_level", "restart", "wal_level is replica")
	for i := range 279 {
		name := wal.RelationName{Schema: "public", Name: fmt.Sprintf("t%03d", i)}
		fs.addTable(name, Warning, "no_stamps", "add the columns", "they have no stamps", "table %s has no stamps", name)
	}
	for i := range 3 {
		name := wal.RelationName{Schema: "public", Name: fmt.Sprintf("u%d", i)}
		fs.addTable(name, Warning, "identity", "alter it", "they are not FULL", "table %s is not FULL", name)
	}
	var b strings.Builder
	fs.Print(&b, false)
	if n := strings.Count(b.String(), "\n"); n != 2*(1+1+3) {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	for _, want := range []string{"ERROR    wal_level", "279 tables: they have no stamps (public.t000, public.t001, public.t002 and 276 more; --all names them)", "such as public.t000: add the columns", "table public.u2 is not FULL"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if n := len(fs.Together("")); n != 1+1+3 {
		t.Errorf("%d findings together", n)
	}
	b.Reset()
	fs.Print(&b, true)
	if n := strings.Count(b.String(), "\n"); n != 2*(1+279+3) {
		t.Errorf("--all: %d lines", n)
	}
}

func TestAVersionOfSomethingElseIsRecognised(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		column pg.Column
		key    []string
		want   string
	}{
		{pg.Column{Name: "version", Default: "0"}, []string{"id"}, ""},
		{pg.Column{Name: "version", Default: "'1'::bigint"}, []string{"id"}, ""},
		{pg.Column{Name: "version"}, []string{"id"}, ""},
		{pg.Column{Name: "version", Default: "2"}, []string{"id"}, "its default is 2"},
		{pg.Column{Name: "version", Default: "0"}, []string{"id", "version"}, "it is part of the key"},
	} {
		got := notAVersion(&pg.Table{PrimaryKey: c.key, Columns: []pg.Column{c.column}}, &c.column)
		if got != c.want {
			t.Errorf("default %q, key %v: %q, want %q", c.column.Default, c.key, got, c.want)
		}
	}
}
