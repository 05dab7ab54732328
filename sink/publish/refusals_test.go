package publish

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server whose disk was full refuses every frame behind the first for a reason that says nothing. It is
// tried ever more seldom, started again, and the reason is told. Refusals with progress in between are
// none of this.
func TestAStreamThatTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		repairs := 0
		r := runner{p: New(Config{Repair: func(context.Context, string) error { repairs++; return nil }})}
		for end := range uint64(20) {
			r.takesNothing(t.Context(), end)
			<-time.After(time.Second)
		}
		if repairs != 0 || !r.notUntil.IsZero() {
			t.Fatalf("%d repairs although the stream grows", repairs)
		}
		tries := 0
		for began := time.Now(); time.Since(began) < 20*time.Second; tries++ {
			r.takesNothing(t.Context(), 43)
			<-time.After(max(time.Millisecond, time.Until(r.notUntil)))
		}
		if tries > 30 || repairs == 0 || repairs > 3 {
			t.Errorf("%d tries and %d repairs in 20 s", tries, repairs)
		}
		if !r.p.noRoom {
			t.Error("what all have is kept on a disk that has no room")
		}
		r.p.mode, r.p.problem = broken, errors.New("wrong last sequence: 43")
		r.explain()
		r.explain()
		if got := r.p.problem.Error(); !errors.Is(r.p.problem, ErrResources) || strings.Count(got, "disk") != 1 || !strings.Contains(got, "sequence: 43") {
			t.Errorf("told: %s", got)
		}
	})
}
