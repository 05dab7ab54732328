package sim

import (
	"maps"
	"slices"

	"github.com/pgwaltz/pgwaltz/wire"
)

// message is one stored message.
type message struct {
	seq  uint64
	id   string
	data []byte
}

// stream is the durable stream of one origin: it stores in order, hands out sequence
// numbers, and keeps them only as long as nothing happens to the disk.
type stream struct {
	w    *World
	r    *region
	msgs []message // ascending, without holes
	last uint64
	life int // a stream that is made anew begins at 1
	ids  map[string]uint64
	full bool   // it takes nothing
	disk uint64 // last sequence number that is on disk, where that is looked after (Config.Lazy)
}

func newStream(w *World, r *region) *stream {
	return &stream{w: w, r: r, ids: map[string]uint64{}}
}

// publish stores a message if last is the last sequence number. It answers with the number.
func (s *stream) publish(last uint64, id string, data []byte) (uint64, bool) {
	if seq, ok := s.ids[id]; ok && id != "" {
		return seq, true // a duplicate
	}
	if id != "" && last != s.last {
		return 0, false
	}
	s.last++
	s.msgs = append(s.msgs, message{s.last, id, data})
	if id != "" {
		s.ids[id] = s.last
	}
	for _, r := range s.w.regions {
		r.side.stored(s.r.id)
	}
	return s.last, true
}

// fill makes the stream take nothing for a while. Applications go on writing; it may last until
// after the other faults.
func (s *stream) fill() {
	s.full = true
	s.w.after(s.w.span(100_000, 20_000_000), func() {
		s.full = false
		if o := s.r.side.out; o != nil {
			o.send()
		}
	})
}

// image is a stream as a snapshot of its disk holds it.
type image struct {
	msgs []message
	last uint64
	ids  map[string]uint64
}

func (s *stream) image() *image { return &image{slices.Clone(s.msgs), s.last, maps.Clone(s.ids)} }

// restore brings a snapshot back.
func (s *stream) restore(i *image) {
	s.msgs, s.last, s.ids = slices.Clone(i.msgs), i.last, maps.Clone(i.ids)
	s.life++
	for _, r := range s.w.regions {
		r.side.moved(s.r.id)
	}
}

func (s *stream) first() uint64 {
	if len(s.msgs) == 0 {
		return s.last + 1
	}
	return s.msgs[0].seq
}

// at returns the message with a number, or nil.
func (s *stream) at(seq uint64) *message {
	if f := s.first(); seq >= f && seq <= s.last {
		return &s.msgs[seq-f]
	}
	return nil
}

// purge removes what is below seq, but never the last message.
func (s *stream) purge(seq uint64) {
	for len(s.msgs) > 1 && s.msgs[0].seq < seq {
		s.msgs = s.msgs[1:]
	}
}

// truncate loses the last n messages, acknowledged or not. Their numbers are given out again.
func (s *stream) truncate(n int) {
	for ; n > 0 && len(s.msgs) > 0; n-- {
		m := s.msgs[len(s.msgs)-1]
		delete(s.ids, m.id)
		s.msgs = s.msgs[:len(s.msgs)-1]
		s.last--
	}
	s.life++
	for _, r := range s.w.regions {
		r.side.moved(s.r.id)
	}
}

// powerCut loses some of what is not on disk: messages at the end, and now and then one in front of those that are left.
func (s *stream) powerCut() {
	n := int(s.last - min(s.disk, s.last))
	if n > 0 {
		lost := s.w.rng.IntN(n + 1)
		s.truncate(lost)
		s.w.Stats.Lost += lost
		if left := n - lost; left > 0 && len(s.msgs) >= left && s.w.rng.IntN(3) == 0 {
			m := &s.msgs[len(s.msgs)-1-s.w.rng.IntN(left)]
			m.data = make([]byte, len(m.data)) // the file was longer already, and this was not written
		}
	}
	s.r.unsure = true
}

// remove deletes the stream; the next publisher makes a new one.
func (s *stream) remove() {
	s.msgs, s.last, s.ids = nil, 0, map[string]uint64{}
	s.life++
	for _, r := range s.w.regions {
		r.side.moved(s.r.id)
	}
}

// tail is what a publisher finds at the end of its stream.
type tail struct {
	found   bool // header is that of the newest frame that can be read
	damaged bool // frames behind it cannot
	header  wire.Header
}

func (s *stream) tail() (t tail) {
	for i := len(s.msgs) - 1; i >= 0; i-- {
		h, err := wire.ParseHeader(s.msgs[i].data)
		if err == nil {
			t.found, t.header = true, h
			break
		}
		if s.msgs[i].id != "" { // else foreign: not ours to say anything about
			t.damaged = true
		}
	}
	return t
}
