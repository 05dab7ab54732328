package sidecar

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wire"
)

// What lies before the first frame of the present incarnation is known as long as that frame is.
func TestWhereAnIncarnationBegins(t *testing.T) {
	t.Parallel()
	var x seqIndex
	if got := x.before(); got != 0 {
		t.Errorf("before the first frame: %d", got)
	}
	x.add(wire.Header{Incarnation: 3, Number: 41}, 100)
	if got := x.before(); got != 0 {
		t.Errorf("behind a restart: %d", got)
	}
	x.add(wire.Header{Incarnation: 4, Number: 1}, 101)
	x.add(wire.Header{Incarnation: 4, Number: 2}, 102)
	if got := x.before(); got != 100 {
		t.Errorf("%d, want what is below sequence 101", got)
	}
	for n := uint64(3); n < 2*maxSeqs; n++ {
		x.add(wire.Header{Incarnation: 4, Number: n}, 100+n)
	}
	if got := x.before(); got != 0 {
		t.Errorf("when the first frame is forgotten: %d", got)
	}
}
