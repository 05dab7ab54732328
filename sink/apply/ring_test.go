package apply

import (
	"fmt"
	"slices"
	"testing"
)

// TestRingsOf: what waits behind a row that does not move is no part of a ring.
func TestRingsOf(t *testing.T) {
	t.Parallel()
	large := map[int64][]int64{}
	for i := int64(1); i <= maxRing+1; i++ {
		large[i] = []int64{i%(maxRing+1) + 1}
	}
	for name, c := range map[string]struct {
		behind map[int64][]int64
		want   string
	}{
		"none":              {nil, "[]"},
		"a swap":            {map[int64][]int64{1: {2}, 2: {1}}, "[[1 2]]"},
		"a ring and a row":  {map[int64][]int64{1: {2}, 2: {3}, 3: {1}, 4: {0}}, "[[1 2 3]]"},
		"two rings":         {map[int64][]int64{1: {2}, 2: {1}, 7: {8}, 8: {7}}, "[[1 2] [7 8]]"},
		"behind a row":      {map[int64][]int64{1: {2}, 2: {1, 0}}, "[]"},
		"a chain to a row":  {map[int64][]int64{1: {2}, 2: {3}, 3: {0}}, "[]"},
		"two values":        {map[int64][]int64{1: {2, 3}, 2: {1}, 3: {1}}, "[[1 2 3]]"},
		"more than goes in": {large, "[]"},
	} {
		got := ringsOf(c.behind)
		slices.SortFunc(got, func(a, b []int64) int { return int(a[0] - b[0]) })
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}
