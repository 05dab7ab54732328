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
	dated := Shape{Table: `"public"."plain"`, Only: true, Key: key, Time: "time(t)"}
	child := Shape{Table: `"public"."r9"`, Only: true, Key: key}
	parts := Shape{Table: `"public"."p"`}
	folded := Shape{Table: `"public"."t"`, Only: true, Version: "version",
		Key: []Param{
			{Name: "k", Type: "public.citext", Less: "public.<", Equal: "public.=", Greater: "public.>"},
			{Name: "n", Type: "text", Collation: `"public"."nd"`},
		},
		Values: []Param{{Name: "k", Type: "public.citext"}, {Name: "p", Type: "public.pt", Input: true}}}
	cascading := Reference{Table: `"public"."child"`, Only: true, Columns: []string{"pid"}, Parent: []string{"id"}, Equals: []string{"operator(pg_catalog.=)"}}
	setting := Reference{Table: `"s"."parts"`, Columns: []string{"x", "y"}, Parent: []string{"a", "b"},
		Equals: []string{"operator(pg_catalog.=)", "operator(public.=)"}, Set: []string{"y"}, To: "default"}
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
		{"rows that reference deleted ones", Referencing(stamped, cascading)},
		{"cascade", Cascade(stamped, cascading)},
		{"set null", Cascade(timed, setting)},
		{"rows that reference deleted ones of one partition", Referencing(stamped, Reference{On: `only "public"."acct_1"`, Table: cascading.Table, Columns: cascading.Columns, Parent: cascading.Parent, Equals: cascading.Equals})},
		{"lock and read", Lock(timed, []string{"a", "b", `odd "name`})},
		{"lock, and when the row was written", Lock(dated, []string{"id"})},
		{"update of the rows that have the large value", Update(Shape{Table: stamped.Table, Only: true, Version: "version", Values: text[1:],
			Key: []Param{key[0], {Name: "big", Type: "text", Digest: true}, {Name: "doc", Type: "jsonb", Digest: true}}}, GuardVersion)},
		{"digests", Digests(stamped, []Column{{"big", "character varying"}, {"doc", "jsonb"}})},
		{"rows that were put", Put(stamped)},
		{"rows that were put without stamps", Put(bare)},
		{"read", Read(stamped, []string{"id", "at"})},
		{"delete one row by its contents", ExactDelete(child, text)},
		{"update one row by its contents", ExactUpdate(parts, text[:1], text[1:])},
		{"insert one row of a table without a key", ExactInsert(child, text)},
		{"insert one row of a table without columns", ExactInsert(child, nil)},
		{"update of a plain table by keys of an extension's type", Update(folded, GuardBase)},
		{"delete by such a key", Delete(folded, GuardNone)},
		{"lock by such a key", Lock(folded, []string{"k", "v"})},
		{"keys that the server tells", Ask([]Asked{{Param: folded.Key[0], Lower: true}, {Param: folded.Key[1], Hash: Hash{Func: "pg_catalog.hashtextextended", Collation: `"public"."nd"`, Dims: true}}, {Param: Param{Type: "jsonb"}, Hash: Hash{Func: "pg_catalog.jsonb_hash_extended", Text: true}}})},
		{"generated key columns", Compute(`"public"."gk"`, []string{"(a * 2)"})},
		{"rows that clash", Clash(stamped, Constraint{Terms: []Term{{`"pos"`, "pg_catalog.="}, {`"during"`, "pg_catalog.&&"}}})},
		{"rows written now that clash", ClashNow(stamped, Constraint{Terms: []Term{{`"pos"`, "pg_catalog.="}}})},
		{"rows that clash under an expression and a condition", Clash(child, Constraint{Terms: []Term{{`lower(v)`, "pg_catalog.="}}, Where: "active", Nulls: true})},
		{"rows whose unique values others have", Taken(stamped, Constraint{Terms: []Term{{`mail collate "public"."nd"`, "public.="}, {"n", "pg_catalog.="}}}, []Param{{Name: "mail", Type: "public.citext"}, {Name: "n", Type: "text"}, {Name: "id", Type: "integer"}}, false)},
		{"the same under a condition, and who waits for the keys of those", Taken(folded, Constraint{Terms: []Term{{"lower(mail)", "pg_catalog.="}}, Where: "(gone IS NULL)", Nulls: true}, []Param{{Name: "mail", Type: "text"}, {Name: "gone", Type: "date"}, {Name: "k", Type: "public.citext"}, {Name: "n", Type: "text"}}, true)},
		{"lock of a table", LockTable(child)},
		{"first page of a copy", Page(timed, []string{"a", "b"}, false)},
		{"next page of a copy", Page(timed, []string{"a", "b"}, true)},
		{"page, and when the rows were written", Page(dated, []string{"id"}, true)},
		{"first page by such a key", Page(folded, []string{"k", "n"}, false)},
		{"next page by such a key", Page(folded, []string{"k", "n"}, true)},
		{"put one row, and save that", RowOrFails(stamped, InsertRow(stamped, 1), "update s set n = $1 where o", 4, "really")},
		{"put one row by an identity column and an input function", InsertRow(Shape{Table: folded.Table, Values: folded.Values, Version: "version", Override: true}, 0)},
		{"change one row over a known base, and save that", RowOrFails(stamped, UpdateRow(stamped, GuardBase, 1), "update s set n = $1 where o", 7, "really")},
		{"change one row over an unknown base by time", UpdateRow(timed, GuardTime, 0)},
		{"change one row that has the large value", UpdateRow(Shape{Table: stamped.Table, Only: true, Version: "version", Values: text[1:], Key: []Param{{Name: "id", Type: "integer", Binary: true}, {Name: "big", Type: "text", Digest: true}}}, GuardVersion, 0)},
		{"put all rows or fail", WrittenOrFails(stamped, Insert(stamped), false, 3, "really")},
		{"change all rows or fail", WrittenOrFails(timed, Update(timed, GuardTime), true, 5, "really")},
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
