package demo

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestLagIsTheAgeOfWhatIsNotApplied(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	var m lagMeter
	for _, c := range []struct {
		second       int
		out, applied wal.LSN
		want         int
	}{
		{0, 10, 10, 0},
		{1, 20, 10, 0}, // seen for the first time
		{2, 30, 10, 1},
		{3, 30, 10, 2}, // nothing new is published, but the old is not applied either
		{4, 40, 25, 2}, // 30 is the oldest now, seen at 2
		{5, 40, 40, 0},
		{6, 40, 40, 0},
		{9, 50, 40, 0},
		{10, 5, 40, 1}, // a position that goes back is not noted
	} {
		if got := m.see(start.Add(time.Duration(c.second)*time.Second), c.out, c.applied); got != time.Duration(c.want)*time.Second {
			t.Errorf("second %d: %s, want %d s", c.second, got, c.want)
		}
	}
}

func TestCeilingHoldsEveryLag(t *testing.T) {
	t.Parallel()
	for lag, want := range map[float64]float64{0: 0.1, 0.3: 0.5, 5: 5, 5.1: 10, 4000: 4000} {
		if got := ceiling([]sample{{Lag: [2]float64{0, lag}}}); got != want {
			t.Errorf("%g: %g, want %g", lag, got, want)
		}
	}
}

func TestFeedTellsEachConflictOnce(t *testing.T) {
	t.Parallel()
	f := &feed{events: map[string]int{}}
	f.add(0, "a", logged{Type: "one", Key: `{"uuid": "358de90a-b1a3"}`})
	f.add(1, "b", logged{Type: "two", Key: `["12345678-90", 3]`})
	f.add(1, "a", logged{Type: "one"})
	f.add(1, "a", logged{Type: "one"})
	newest, all, both := f.look(5)
	if all != 2 || both != 1 || len(newest) != 2 || newest[0].Type != "two" || newest[1].Logs != [2]bool{true, true} {
		t.Errorf("%d, %d, %+v", all, both, newest)
	}
	if newest[1].Key != "358de90a" || newest[0].Key != "12345678" {
		t.Errorf("%+v", newest)
	}
	if newest, _, _ = f.look(1); len(newest) != 1 || newest[0].Type != "two" {
		t.Errorf("%+v", newest)
	}
	for key, want := range map[string]string{`{"a": 1, "b": 2}`: `{"a": 1,`, `7`: "7", `["x"]`: "x", ``: ""} {
		if got := shortKey(key); got != want {
			t.Errorf("%s: %q", key, got)
		}
	}
}
