package rowkey

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What is said of plain keys without a look at the catalog is what is said with one.
func TestPlainNeedsNoLook(t *testing.T) {
	t.Parallel()
	for oid := range plainTypes {
		form, with, why := formOf([]part{{typ: typ{oid: oid, kind: "b", sql: "t"}}}, "pg_catalog.f")
		if form != wal.FormPlain || with != (statement.Hash{}) || why != "" {
			t.Errorf("type %d is %s, %+v, %s", oid, form, with, why)
		}
	}
	for name, c := range map[string]struct {
		columns []Column
		want    bool
	}{
		"numbers and a text":           {[]Column{{OID: wal.OIDInt8}, {OID: wal.OIDText, coll: 100}}, true},
		"a text under its own":         {[]Column{{OID: wal.OIDInt8}, {OID: wal.OIDText, coll: 16400}}, false},
		"a type that has other texts":  {[]Column{{OID: oidNumeric}}, false},
		"a type of the application":    {[]Column{{OID: 16400}}, false},
		"text under an ICU collation":  {[]Column{{OID: wal.OIDText, coll: 12800}}, false},
		"a table without a key at all": {nil, true},
	} {
		k := Key{Columns: c.columns}
		for i := range k.Columns {
			k.Columns[i].Form, k.Columns[i].Hash = wal.FormUnknown, statement.Hash{Func: "f"}
		}
		got := k.plain()
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for i := range k.Columns {
			if told := k.Columns[i].Form == wal.FormPlain && k.Columns[i].Hash == (statement.Hash{}); told != c.want {
				t.Errorf("%s: column %d is %s", name, i, k.Columns[i].Form)
			}
		}
	}
}
