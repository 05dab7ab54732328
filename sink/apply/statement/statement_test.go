package statement

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// TestStatements holds every generated statement against testdata/statements.golden, which a
// human has read.
func TestStatements(t *testing.T) {
	t.Parallel()
	key := []Param{{Name: "id", Type: "integer"}}
	text := []Param{{Name: "id", Type: "integer"}, {Name: `odd "name`, Type: "text"}, {Name: "at", Type: "timestamp with time zone"}}
	binary := []Param{{Name: "id", Type: "integer", Binary: true}, {Name: `odd "name`, Type: "text", Binary: true}}
	stamped := Shape{Table: `"public"."acct"`, Key: key, Values: text, Version: "version", UpdatedAt: "updated_at", UpdatedType: "timestamp with time zone"}
	timed := Shape{Table: `"s 2"."t""x"`, Key: []Param{{Name: "a", Type: "uuid"}, {Name: "b", Type: "text"}}, Values: text[1:], UpdatedAt: "at", UpdatedType: "date"}
	bare := Shape{Table: `"public"."plain"`, Key: key, Values: binary}
	always := bare
	always.Override = true
	plain := bare
	plain.Plain = true
	var b strings.Builder
	for _, c := range []struct{ name, sql string }{
		{"insert with stamps", Insert(stamped)},
		{"insert without stamps, binary", Insert(bare)},
		{"insert into a table with an identity column", Insert(always)},
		{"insert that has to fail", Insert(plain)},
		{"update over a known base", Update(stamped, GuardBase)},
		{"update over an unknown base by version", Update(stamped, GuardVersion)},
		{"update over an unknown base by time", Update(timed, GuardTime)},
		{"update of a resolved row", Update(bare, GuardNone)},
		{"delete over a known base", Delete(stamped, GuardBase)},
		{"delete over an unknown base", Delete(timed, GuardTime)},
		{"delete of a resolved row", Delete(bare, GuardNone)},
		{"lock and read", Lock(timed, []string{"a", "b", `odd "name`})},
		{"one row by its contents", Exact(`"public"."r9"`, text)},
	} {
		b.WriteString("-- " + c.name + "\n" + c.sql + "\n\n")
	}
	file := filepath.Join("testdata", "statements.golden")
	if *updateGolden {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the statements differ from %s; look at them and run with -update:\n%s", file, b.String())
	}
}
