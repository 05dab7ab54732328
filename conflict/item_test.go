package conflict

import (
	"math/rand/v2"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The join of some items is the same in whatever order and however often they come.
func TestItemsJoin(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20_000 {
		items := make([]Item, 1+rng.IntN(5))
		for i := range items {
			items[i] = Item{LSN: wal.LSN(1 + rng.IntN(4)), Next: rng.Uint32N(4), Live: rng.IntN(2) == 0, At: wal.Micros(rng.IntN(4))}
		}
		left, right := Item{}, Item{}
		for i := range items {
			left = left.Join(items[i])
			right = items[len(items)-1-i].Join(right)
		}
		half := Item{}
		for _, it := range items[len(items)/2:] {
			half = half.Join(it)
		}
		again := half.Join(left).Join(items[0])
		if left != right || again != left {
			t.Fatalf("%+v: %+v, %+v, %+v", items, left, right, again)
		}
		for _, it := range items {
			row, change := left.Over()
			if left.Born() < it.Next || it.Live && it.Next > 0 && left.Born() <= it.Next || change < it.Next ||
				row < it.Next && change <= it.Next && it.Live || it.LSN == left.LSN && row < it.Next {
				t.Fatalf("%+v is not above %+v: born %d, over %d %d", left, it, left.Born(), row, change)
			}
		}
	}
}

// What is written last is what the next change overwrites, and that goes above everything.
func TestItemsOver(t *testing.T) {
	t.Parallel()
	live := func(lsn wal.LSN, gen uint32) Item { return Item{LSN: lsn, Next: gen, Live: true} }
	dead := func(lsn wal.LSN, gen uint32) Item { return Item{LSN: lsn, Next: gen + 1} }
	for name, c := range map[string]struct {
		items             []Item
		born, row, change uint32
	}{
		"nothing is known":                           {nil, 0, 0, 0},
		"a row of the first generation":              {[]Item{live(1, 0)}, 0, 0, 0},
		"a tombstone":                                {[]Item{dead(1, 0)}, 1, 1, 1},
		"a row over a tombstone":                     {[]Item{dead(1, 0), live(2, 1)}, 2, 1, 1},
		"a lower delete over a row":                  {[]Item{live(1, 3), dead(2, 1)}, 4, 2, 4},
		"a lower row over a row":                     {[]Item{live(1, 3), live(2, 1)}, 4, 1, 4},
		"a lower row over a tombstone":               {[]Item{dead(1, 3), live(2, 1)}, 4, 1, 4},
		"a delete of the row's own":                  {[]Item{live(1, 3), dead(2, 3)}, 4, 4, 4},
		"a row over all of it":                       {[]Item{live(1, 3), live(2, 1), live(3, 4)}, 5, 4, 4},
		"a lower row, which becomes known only late": {[]Item{live(1, 3), live(3, 4), live(2, 1)}, 5, 4, 4},
	} {
		j := Item{}
		for _, it := range c.items {
			j = j.Join(it)
		}
		if row, change := j.Over(); j.Born() != c.born || row != c.row || change != c.change {
			t.Errorf("%s: born %d, over %d, %d; want %d, %d, %d", name, j.Born(), row, change, c.born, c.row, c.change)
		}
	}
}
