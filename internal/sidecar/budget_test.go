package sidecar

import (
	"testing"
	"time"
)

func TestRewindsHaveABudget(t *testing.T) {
	t.Parallel()
	var b budget
	at := time.Unix(1000, 0)
	granted := 0
	for range 1000 {
		if b.take(at) {
			granted++
		}
		at = at.Add(time.Second)
	}
	if granted < rewindBurst+30 || granted > rewindBurst+35 {
		t.Errorf("%d of 1000 rewinds, one a second, were granted", granted)
	}
	if at = at.Add(time.Hour); !b.take(at) {
		t.Error("an hour later one is refused")
	}
}
