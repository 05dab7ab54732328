package sidecar

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/replicator"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A frame that was handed over and lost gives its number to the next pipe's: a chunk counts as stored only by the
// word of the pipe that framed it.
func TestAChunkIsStoredByThePipeThatFramedIt(t *testing.T) {
	t.Parallel()
	first, second := &replicator.Outbound{}, &replicator.Outbound{}
	o := &outboundState{pipe: first, incarnation: 3}
	framed := make(chan wire.Header, 1)
	framed <- wire.Header{Incarnation: 3, Number: 7}
	o.frame.Store(7)
	if at, ok, err := o.awaitFrame(t.Context(), first, framed); !ok || err != nil || at != (tablecopy.Place{Incarnation: 3, Frame: 7}) {
		t.Errorf("stored: %v, %v, %v", at, ok, err)
	}
	framed <- wire.Header{Incarnation: 3, Number: 7}
	o.pipe = second
	if at, ok, err := o.awaitFrame(t.Context(), first, framed); ok || err != nil {
		t.Errorf("the frame of another pipe counts: %v, %v", at, err)
	}
}
