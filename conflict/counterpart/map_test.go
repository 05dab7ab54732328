package counterpart

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What an origin calls its columns now is stored with the next transaction, and again where one that was under way had an
// older word of it.
func TestSee(t *testing.T) {
	t.Parallel()
	var m Map
	rel := func(names ...string) *wal.Relation {
		r := &wal.Relation{}
		for i, n := range names {
			if n != "" {
				r.Columns = append(r.Columns, wal.Column{Name: n, ID: wal.ColumnID(9, int16(i+1))})
			}
		}
		return r
	}
	want := func(n int, names string) {
		t.Helper()
		got := map[int16]string{}
		for _, c := range m.Of(9) {
			got[wal.NumOf(c.Theirs)] = c.Name
		}
		if fmt.Sprint(got) != names || len(m.Unstored()) != n {
			t.Errorf("names are %v, %d to be stored; want %s and %d", got, len(m.Unstored()), names, n)
		}
	}
	m.See(rel("id", "a", "b"))
	want(0, "map[]") // matched by nobody yet
	m.Settle([]Column{{wal.ColumnID(9, 1), 5, 1, "id"}, {wal.ColumnID(9, 2), 5, 3, "a"}, {wal.ColumnID(9, 3), 5, 2, "b"}})
	want(0, "map[1:id 2:a 3:b]")
	if !m.Stands(5) || m.Stands(9) {
		t.Error("the tables here are mistaken")
	}
	m.See(rel("id", "b", "a"))
	want(2, "map[1:id 2:b 3:a]")
	under := m.Unstored()
	m.See(rel("id", "", "a"))
	want(2, "map[1:id 2: 3:a]")
	m.Settle(under)
	want(1, "map[1:id 2: 3:a]")
	m.See(&wal.Relation{Columns: []wal.Column{{Name: "id"}}})
	want(1, "map[1:id 2: 3:a]")
	m.Settle(m.Unstored())
	want(0, "map[1:id 2: 3:a]")
}
