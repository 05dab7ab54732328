package publish

import (
	"time"

	"github.com/pgwaltz/pgwaltz/wire"
)

// window holds the frames that are not known to be durable, oldest first: the first sent of
// them are under way, the others wait. It is no more than a list; the Publisher's mutex
// guards it.
type window struct {
	maxFrames, maxBytes int
	entries             []*entry
	bytes               int
	sent                int
}

// slowestLink is how many bytes a second a link has to carry for a frame not to be taken for lost.
const slowestLink = 32 << 10

// patience is how long nothing may be heard of a frame, beside what an acknowledgement may take.
func patience(e *entry) time.Duration {
	return time.Duration(len(e.frame.Data)) * time.Second / slowestLink
}

type entry struct {
	frame  wire.Frame
	expect uint64 // the stream's last sequence before it, as sent
	sentAt time.Time
	seq    uint64 // once acknowledged
	noID   bool   // send without message id: the server's memory of it proved wrong
}

func (w *window) room(size int) bool {
	return len(w.entries) == 0 || len(w.entries) < w.maxFrames && w.bytes+size <= w.maxBytes
}

func (w *window) push(f wire.Frame) {
	w.entries = append(w.entries, &entry{frame: f})
	w.bytes += len(f.Data)
}

// find returns the frame of that number, if it was sent in this attempt.
func (w *window) find(number uint64) *entry {
	if len(w.entries) == 0 || number < w.entries[0].frame.Header.Number {
		return nil
	}
	// Numbers are consecutive in an incarnation, and a window never spans two.
	i := number - w.entries[0].frame.Header.Number
	if i >= uint64(w.sent) {
		return nil
	}
	return w.entries[i]
}

// pop removes the oldest frame.
func (w *window) pop() *entry {
	e := w.entries[0]
	w.entries[0] = nil
	w.entries = w.entries[1:]
	w.bytes -= len(e.frame.Data)
	w.sent = max(0, w.sent-1)
	return e
}

// within reports whether the next frame may be sent when n bytes may be under way.
func (w *window) within(n int) bool {
	if w.sent == len(w.entries) {
		return false
	}
	size := len(w.entries[w.sent].frame.Data)
	for _, e := range w.entries[:w.sent] {
		size += len(e.frame.Data)
	}
	return w.sent == 0 || size <= n
}

// unsend makes every frame wait again.
func (w *window) unsend() {
	w.sent = 0
	for _, e := range w.entries {
		e.seq = 0
	}
}
