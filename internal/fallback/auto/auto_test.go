package auto

import (
	"testing"
	"time"
)

var start = time.Unix(1e9, 0)

// feed asks every second from one second on, and returns the first at which it is time; -1 for none.
func feed(ask func(time.Time, bool) bool, from, to int, linked func(int) bool) int {
	for i := from; i < to; i++ {
		if ask(start.Add(time.Duration(i)*time.Second), linked(i)) {
			return i
		}
	}
	return -1
}

func never(int) bool  { return false }
func always(int) bool { return true }

// flaps is there for the first seconds of every minute.
func flaps(seconds int) func(int) bool { return func(i int) bool { return i%60 < seconds } }

func TestDecider(t *testing.T) {
	t.Parallel()
	limits := Limits{After: 15 * time.Minute, Back: 5 * time.Minute}
	for _, c := range []struct {
		name   string
		linked func(int) bool
		leaves int // seconds
		comes  int // seconds, asked while away
	}{
		{"gone", never, 900, -1},
		{"there", always, -1, 300},
		{"there for 20 s of each minute, which is not steady", flaps(20), 920, -1},
		{"there for 40 s of each minute", flaps(40), -1, 300},
		{"gone once for a moment", func(i int) bool { return i < 200 || i > 210 }, -1, 300},
		{"gone once for a minute", func(i int) bool { return i < 200 || i >= 260 }, -1, 560},
		{"gone for ten minutes", func(i int) bool { return i >= 600 }, -1, 900},
	} {
		if got := feed((&Decider{Limits: limits}).Stream, 0, 4000, c.linked); got != c.leaves {
			t.Errorf("%s: it leaves after %d s, want %d", c.name, got, c.leaves)
		}
		if got := feed((&Decider{Limits: limits}).Away, 0, 4000, c.linked); got != c.comes {
			t.Errorf("%s: it comes back after %d s, want %d", c.name, got, c.comes)
		}
	}
}

// Each way back copies all tables: who leaves often stays away for longer, and is forgiven after an hour.
func TestDeciderSlowsDown(t *testing.T) {
	t.Parallel()
	d := &Decider{Limits: Limits{After: time.Minute, Back: time.Minute}}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 16} {
		at := start.Add(time.Duration(i) * time.Minute)
		d.Left(at)
		if got := d.BackAfter(at); got != want*time.Minute {
			t.Errorf("after %d times away: %s, want %d m", i+1, got, want)
		}
	}
	if got := d.BackAfter(start.Add(2 * time.Hour)); got != time.Minute {
		t.Errorf("two hours later: %s", got)
	}
	d.Reset()
	if d.Stream(start, false) || d.Stream(start.Add(30*time.Second), false) {
		t.Error("it leaves before its time")
	}
	d.Reset()
	if d.Stream(start.Add(61*time.Second), false) {
		t.Error("it does not begin anew")
	}
}
