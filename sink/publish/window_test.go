package publish

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wire"
)

func TestWhatIsUnderWayFollowsTheLink(t *testing.T) {
	t.Parallel()
	r := reach{bytes: 1 << 20, max: 16 << 20}
	for range 6 {
		r.took(3 * time.Millisecond)
	}
	if r.bytes != 16<<20 {
		t.Errorf("a fast link: %d bytes may be under way, want all", r.bytes)
	}
	for range 20 {
		r.took(4 * time.Second)
	}
	if r.bytes != minReach {
		t.Errorf("a slow link: %d bytes may be under way, want %d", r.bytes, minReach)
	}

	w := window{maxFrames: 8, maxBytes: 16 << 20}
	for range 3 {
		w.push(wire.Frame{Data: make([]byte, 200<<10)})
	}
	var sent []int
	for _, n := range []int{0, minReach, 1 << 20} {
		w.sent = 0
		for w.within(n) {
			w.sent++
		}
		sent = append(sent, w.sent)
	}
	if sent[0] != 1 || sent[1] != 1 || sent[2] != 3 {
		t.Errorf("frames under way of three: %v, want one at least, one within %d, all within a MiB", sent, minReach)
	}
	if d := patience(w.entries[0]); d < 6*time.Second || d > 7*time.Second {
		t.Errorf("patience with 200 KiB: %s", d)
	}
}
