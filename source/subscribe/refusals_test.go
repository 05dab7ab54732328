package subscribe

import (
	"testing"
	"time"
)

func TestRefusalsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var r refusals
	at, lines := time.Unix(1000, 0), 0
	for range 10_000 {
		if r.left(at) {
			lines++
		}
		at = at.Add(10 * time.Millisecond)
	}
	if lines != 2*refusalLines {
		t.Errorf("%d lines in 100 seconds", lines)
	}
}
