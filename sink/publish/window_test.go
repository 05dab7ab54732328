package publish

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/wire"
)

func TestWindowSendsWhatMayBeUnderWay(t *testing.T) {
	t.Parallel()
	w := window{maxFrames: 8, maxBytes: 16 << 20}
	for range 3 {
		w.push(wire.Frame{Data: make([]byte, 200<<10)})
	}
	var sent []int
	for _, n := range []int{0, broker.MinReach, 1 << 20} {
		w.sent = 0
		for w.within(n) {
			w.sent++
		}
		sent = append(sent, w.sent)
	}
	if sent[0] != 1 || sent[1] != 1 || sent[2] != 3 {
		t.Errorf("frames under way of three: %v, want one at least, one within %d, all within a MiB", sent, broker.MinReach)
	}
	if d := patience(w.entries[0]); d < 6*time.Second || d > 7*time.Second {
		t.Errorf("patience with 200 KiB: %s", d)
	}
}
