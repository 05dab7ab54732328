package publish

import (
	"errors"
	"fmt"
)

var (
	// ErrFenced: another publisher of this region has written to the stream, or claims a
	// newer incarnation. This one must stop; nothing that it has not seen acknowledged was stored.
	ErrFenced = errors.New("another publisher has taken over the stream")
	// ErrStreamLost: the stream is gone, or lacks frames that it had acknowledged. The
	// remedy is a new incarnation from the slot.
	ErrStreamLost = errors.New("the stream lost acknowledged frames")
	// ErrStreamFull: the stream has reached a limit; publishing waits until peers have
	// applied and Purge has made room.
	ErrStreamFull = errors.New("stream full")
	// ErrResources: the server has no room or memory to store anything.
	ErrResources = errors.New("the NATS server has insufficient resources")
)

// StreamError is a setting of an existing stream that would break a guarantee and that
// cannot be corrected in place.
type StreamError struct{ Stream, Setting, Breaks, Remedy string }

func (e *StreamError) Error() string {
	return fmt.Sprintf("use stream %s: %s: %s", e.Stream, e.Setting, e.Breaks)
}

// Hint tells an operator what to do.
func (e *StreamError) Hint() string { return e.Remedy }

// ForeignMessage is something on our subject that we did not put there. Nothing is done
// with it but to step over it.
type ForeignMessage struct {
	Seq    uint64
	Reason string
	Bytes  int

	damaged bool // it was a frame of ours
}
