package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Descriptions that differ in what a column is, and in nothing else, are two: a column may be dropped and added again under its name. So
// are those that differ in a type, however high its number.
func TestInternTellsColumnsApart(t *testing.T) {
	t.Parallel()
	r := NewRetrier(Config{}, nil)
	rel := func(num int16, oid uint32) *wal.Relation {
		return &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "id", OID: wal.OIDInt4, ID: wal.ColumnID(16400, 1)}, {Name: "v", OID: oid, ID: wal.ColumnID(16400, num)}}}
	}
	was := r.intern(rel(2, wal.OIDText))
	if is := r.intern(rel(3, wal.OIDText)); is == was || is.Columns[1].ID == was.Columns[1].ID {
		t.Errorf("column %d was taken for column 2", wal.NumOf(is.Columns[1].ID))
	}
	if r.intern(rel(2, 3000000)) == r.intern(rel(2, 4000000)) {
		t.Error("one type was taken for another")
	}
	if r.intern(rel(2, wal.OIDText)) != was {
		t.Error("equal descriptions are two")
	}
}
