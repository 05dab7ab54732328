package sidecar

import (
	"slices"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestKeyPositions(t *testing.T) {
	t.Parallel()
	cols := []wal.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for name, c := range map[string]struct {
		names  []string
		places []int
		width  int
		want   []int
	}{
		"by name":            {[]string{"c", "a"}, []int{3, 1}, 3, []int{2, 0}},
		"none":               {nil, nil, 3, nil},
		"renamed since":      {[]string{"id"}, []int{2}, 3, []int{1}},
		"renamed and wider":  {[]string{"id"}, []int{2}, 4, nil},
		"added column since": {[]string{"b"}, []int{3}, 4, []int{1}},
	} {
		if got := keyPositions(c.names, c.places, c.width, cols); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
