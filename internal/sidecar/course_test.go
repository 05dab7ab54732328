package sidecar

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestCourseTellsHowOldTheWALBehindAPositionIs(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var c course
	if d, whole := c.age(5, at(0)); d != 0 || !whole || c.end() != 0 {
		t.Errorf("before the first look: %v %v", d, whole)
	}
	for s, end := range []wal.LSN{100, 100, 200, 300, 300} {
		c.note(at(s), end)
	}
	for _, test := range []struct {
		pos   wal.LSN
		want  int
		whole bool
	}{{50, 10, false}, {99, 10, false}, {100, 8, true}, {150, 8, true}, {200, 7, true}, {300, 0, true}, {400, 0, true}} {
		if d, whole := c.age(test.pos, at(10)); d != time.Duration(test.want)*time.Second || whole != test.whole {
			t.Errorf("behind %d: %v, whole %v; want %d s, %v", test.pos, d, whole, test.want, test.whole)
		}
	}
	c.note(at(11), 250) // another history
	if d, whole := c.age(249, at(12)); d != time.Second || whole || c.end() != 250 {
		t.Errorf("after the end went back: %v, whole %v, end %s", d, whole, c.end())
	}
}

func TestCourseIsBoundedAndKeepsItsBeginning(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	var c course
	const n = 3 * maxSightings
	for s := range n {
		c.note(start.Add(time.Duration(s)*time.Second), wal.LSN(s+1))
	}
	if len(c.seen) > maxSightings {
		t.Errorf("%d sightings", len(c.seen))
	}
	now := start.Add(n * time.Second)
	if d, _ := c.age(0, now); d != n*time.Second {
		t.Errorf("the beginning is forgotten: %v", d)
	}
	for _, pos := range []int{1, 1000, n - 1} {
		if d, _ := c.age(wal.LSN(pos), now); d > time.Duration(n-pos)*time.Second || d < time.Duration(n-pos-16)*time.Second {
			t.Errorf("behind %d: %v, and it is %d s old", pos, d, n-pos)
		}
	}
}
