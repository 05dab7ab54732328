package cutover

import (
	"fmt"
	"testing"
	"time"
)

// Outages are times without a write in which something failed; what is there is held against what was acknowledged, refused or neither.
func TestTally(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { at = at.Add(d); return at }
	y := newTally(at)
	y.note(acknowledged, "", after(time.Second))
	y.note(acknowledged, "", after(4*time.Second)) // slow, and nothing failed
	y.note(refused, "42501", after(time.Second))
	y.miss("08006")
	y.note(unknown, "lost", after(time.Second))
	y.note(acknowledged, "", after(time.Second))
	y.note(unknown, "lost", after(time.Second))
	y.note(acknowledged, "", after(500*time.Millisecond))
	if y.outages != 2 || y.longest != 3*time.Second || y.gap != 4*time.Second || y.next() != 8 || y.count(acknowledged) != 4 || y.count(unknown) != 2 {
		t.Errorf("%+v", y)
	}
	if got := fmt.Sprint(y.states); got != "map[08006:1 42501:1 lost:2]" {
		t.Error(got)
	}
	for there, want := range map[string]string{
		"1 2 5 7":       "[] [] [] 4",
		"1 2 4 5 6 7":   "[] [] [] 6",
		"1 2 5":         "[7] [] [] 3",
		"1 1 2 3 5 7 9": "[] [1] [3 9] 7",
	} {
		rows := map[int64]int64{}
		for _, n := range there {
			if n != ' ' {
				rows[int64(n-'0')]++
			}
		}
		missing, twice, ghosts, n := y.held(rows)
		if got := fmt.Sprint(missing, twice, ghosts, n); got != want {
			t.Errorf("%s: %s, want %s", there, got, want)
		}
	}
}
