package wire

import (
	"reflect"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What a column is travels behind the name of its type, and nothing in a name is taken for it.
func TestColumnIDs(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull}
	for i, c := range []wal.Column{
		{ID: wal.ColumnID(16400, 3)},
		{ID: wal.ColumnID(4294967295, 1600), Type: "public.mood"},
		{Type: "public.mood"},
		{Type: "public.odd\x1f12"},
		{ID: 7, Type: "public.odd\x1f12"},
		{Type: "public.odd\x1fxyz"},
		{Type: "public.odd\x1f"},
	} {
		c.Name, c.OID = string(rune('a'+i)), 25
		rel.Columns = append(rel.Columns, c)
	}
	got, err := parseRelation(appendRelation(nil, rel))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, rel) {
		t.Errorf("got  %+v\nwant %+v", got, rel)
	}
	if id := rel.Columns[1].ID; wal.TableOf(id) != 4294967295 || wal.NumOf(id) != 1600 {
		t.Errorf("the ID names column %d of %d", wal.NumOf(id), wal.TableOf(id))
	}
	for _, foreign := range []string{"x\x1f0007", "x\x1fFF", "x\x1f1000000000000", "x\x1f-1"} {
		if name, id := parseType(foreign); name != foreign || id != 0 {
			t.Errorf("%q was read as %q and %d", foreign, name, id)
		}
	}
}
