package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestDifferences(t *testing.T) {
	t.Parallel()
	a := map[string]string{"1": "a", "2": "b", "3": "c"}
	b := map[string]string{"1": "a", "2": "x", "4": "d", "5": ""}
	if got := differences(a, b); got != 4 {
		t.Errorf("%d rows differ, want 4", got)
	}
	if got := differences(a, a); got != 0 {
		t.Errorf("%d rows differ from themselves", got)
	}
}

// TestTogetherEndsAll: the first failure ends the others, and nothing is left running.
func TestTogetherEndsAll(t *testing.T) {
	t.Parallel()
	broken, ended := errors.New("broken"), false
	err := together(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		ended = true
		return ctx.Err()
	}, func(context.Context) error { return broken })
	if !errors.Is(err, broken) || !ended {
		t.Errorf("got %v, the other one ended: %v", err, ended)
	}
}

func TestReadLoad(t *testing.T) {
	t.Parallel()
	text := `transaction type: load.sql
number of transactions actually processed: 1234
number of failed transactions: 2 (0.162%)
latency average = 1.5 ms
tps = 617.25 (without initial connection time)
`
	if got := (Load{}).seconds(); got != 0 { // and not NaN, which is no JSON
		t.Errorf("a load of nothing took %g s", got)
	}
	if got, ok := readLoad(text); !ok || got != (Load{TPS: 617.25, Count: 1234, Failed: 2}) {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := readLoad(strings.Split(text, "tps")[0]); ok {
		t.Error("a text without a rate was read")
	}
}

func TestSighting(t *testing.T) {
	t.Parallel()
	at := func(us int) time.Time { return time.Unix(1000, 0).Add(time.Duration(us) * time.Microsecond) }
	for _, c := range []struct {
		name              string
		missed, seen, com int
		want              float64
	}{
		{"between two looks", 300, 500, 100, 0.3},
		{"at the first look", -50, 500, 100, 0.2},
	} {
		if got := (sighting{at(c.missed), at(c.seen)}).since(at(c.com)); got != c.want {
			t.Errorf("%s: %g ms, want %g", c.name, got, c.want)
		}
	}
	if got := (sighting{seen: at(500)}).since(at(100)); got != 0.2 {
		t.Errorf("never looked before: %g ms, want 0.2", got)
	}
}

func TestFire(t *testing.T) {
	t.Parallel()
	f, err := kindle(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.out()
	for _, p := range f {
		if p.Running() {
			t.Error("a busy loop still runs")
		}
	}
	if len(f) == 0 {
		t.Error("no busy loop was started")
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	b := &bench{o: Options{Budget: time.Minute}, began: time.Now().Add(-50 * time.Second)}
	if !b.fits(5*time.Second) || b.fits(15*time.Second) {
		t.Error("ten seconds are left: five fit, fifteen do not")
	}
	b.took = map[string]time.Duration{"W1": 5 * time.Second, "W6": 15 * time.Second}
	if b.need("W1") != 5*time.Second || b.need("W3") != 15*time.Second {
		t.Error("a workload takes what it took, and as much as the longest when it has not run")
	}
	b.o.Budget = 0
	if !b.fits(time.Hour) {
		t.Error("without a budget everything fits")
	}
}
