package sink

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
	key := []param{{name: "id", typ: "integer"}}
	text := []param{{name: "id", typ: "integer"}, {name: `odd "name`, typ: "text"}, {name: "at", typ: "timestamp with time zone"}}
	binary := []param{{name: "id", typ: "integer", binary: true}, {name: `odd "name`, typ: "text", binary: true}}
	stamped := shape{table: `"public"."acct"`, key: key, values: text, version: "version", updatedAt: "updated_at", updatedTy: "timestamp with time zone"}
	timed := shape{table: `"s 2"."t""x"`, key: []param{{name: "a", typ: "uuid"}, {name: "b", typ: "text"}}, values: text[1:], updatedAt: "at", updatedTy: "date"}
	bare := shape{table: `"public"."plain"`, key: key, values: binary}
	always := bare
	always.override = true
	plain := bare
	plain.plain = true
	var b strings.Builder
	for _, c := range []struct{ name, sql string }{
		{"insert with stamps", insertSQL(stamped)},
		{"insert without stamps, binary", insertSQL(bare)},
		{"insert into a table with an identity column", insertSQL(always)},
		{"insert that has to fail", insertSQL(plain)},
		{"update over a known base", updateSQL(stamped, guardBase)},
		{"update over an unknown base by version", updateSQL(stamped, guardVersion)},
		{"update over an unknown base by time", updateSQL(timed, guardTime)},
		{"update of a resolved row", updateSQL(bare, guardNone)},
		{"delete over a known base", deleteSQL(stamped, guardBase)},
		{"delete over an unknown base", deleteSQL(timed, guardTime)},
		{"delete of a resolved row", deleteSQL(bare, guardNone)},
		{"lock and read", lockSQL(timed, []string{"a", "b", `odd "name`})},
		{"one row by its contents", exactSQL(`"public"."r9"`, text)},
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
