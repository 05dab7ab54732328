package apply

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What a change keeps of its columns when the origin says which ones its table has.
func TestLessen(t *testing.T) {
	t.Parallel()
	id := func(n int16) uint64 { return wal.ColumnID(70000, n) }
	rel := &wal.Relation{Schema: "public", Name: "t", PrimaryKey: []int{1}, Columns: []wal.Column{{Name: "v", ID: id(2)}, {Name: "id", ID: id(1)}, {Name: "w", ID: id(3)}}}
	keyless := &wal.Relation{Schema: "public", Name: "t", Columns: rel.Columns}
	for name, c := range map[string]struct {
		rel   *wal.Relation
		there map[int16]string
		here  string
		want  string
	}{
		"dropped there and here":                 {rel, map[int16]string{1: "id", 3: "w"}, "id w", "id w"},
		"two of them, another one added":         {rel, map[int16]string{1: "id", 4: "x"}, "id", "id"},
		"dropped here alone":                     {rel, map[int16]string{1: "id", 2: "v", 3: "w"}, "id w", ""},
		"dropped there alone":                    {rel, map[int16]string{1: "id", 3: "w"}, "id v w", ""},
		"renamed there":                          {rel, map[int16]string{1: "id", 2: "u", 3: "w"}, "id w", ""},
		"dropped there and added again":          {rel, map[int16]string{1: "id", 3: "w", 4: "v"}, "id w", ""},
		"the key is dropped":                     {rel, map[int16]string{2: "v", 3: "w"}, "v w", ""},
		"the number belongs to another table":    {rel, map[int16]string{1: "a", 3: "w"}, "id w", ""},
		"a table without a key":                  {keyless, map[int16]string{1: "id", 3: "w"}, "id w", "id w"},
		"a table without a key, nothing is left": {keyless, map[int16]string{}, "", ""},
	} {
		here := map[string]bool{}
		for _, n := range strings.Fields(c.here) {
			here[n] = true
		}
		got := ""
		out, places := lessen(c.rel, c.there, func(n string) bool { return here[n] })
		if out != nil {
			for i, col := range out.Columns {
				if c.rel.Columns[places[i]].ID != col.ID {
					t.Errorf("%s: column %s came from place %d", name, col.Name, places[i])
				}
				if i > 0 {
					got += " "
				}
				got += col.Name
			}
			if c.rel.PrimaryKey != nil && (len(out.PrimaryKey) != 1 || out.Columns[out.PrimaryKey[0]].Name != "id") {
				t.Errorf("%s: the key is %v", name, out.PrimaryKey)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
