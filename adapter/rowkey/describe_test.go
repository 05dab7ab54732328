package rowkey

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// TestDescribe: the WAL may be older than the catalog.
func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names  []string
		places []int
		width  int
		want   []int
	}{
		"by name":            {[]string{"c", "a"}, []int{2, 0}, 3, []int{2, 0}},
		"none":               {nil, nil, 3, nil},
		"renamed since":      {[]string{"id"}, []int{1}, 3, []int{1}},
		"renamed and wider":  {[]string{"id"}, []int{1}, 4, nil},
		"added column since": {[]string{"b"}, []int{2}, 4, []int{1}},
	} {
		rel := &wal.Relation{Schema: "s", Name: "t", Identity: wal.IdentityFull, Columns: []wal.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
		k := Key{Width: c.width, Deferrable: true}
		for i := range c.names {
			k.Columns = append(k.Columns, Column{Name: c.names[i], Place: c.places[i], Form: wal.FormNumeric})
		}
		k.Describe(rel)
		if !slices.Equal(rel.PrimaryKey, c.want) || rel.Deferrable != (c.want != nil) || len(rel.Columns) != 3 {
			t.Errorf("%s: got %+v, want key %v", name, rel, c.want)
		}
		for _, i := range rel.PrimaryKey {
			if rel.Columns[i].Form != wal.FormNumeric {
				t.Errorf("%s: column %s is %s", name, rel.Columns[i].Name, rel.Columns[i].Form)
			}
		}
	}
}
