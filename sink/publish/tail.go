package publish

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/wire"
)

// maxWalk bounds how far back Open looks for an own frame.
const maxWalk = 1000

// Tail is what the stream ends with.
type Tail struct {
	// Found: there is an own, intact frame, Header, stored at Seq.
	Found  bool
	Header wire.Header
	Seq    uint64
	// LastSeq is the stream's last sequence, whatever is stored there.
	LastSeq uint64
	// Damaged: behind the frame lie messages that were frames of ours and cannot be read any
	// more. Peers may have applied them, so that only a new incarnation is safe.
	Damaged bool
	// Foreign counts other messages behind the frame.
	Foreign int
}

// Open creates or checks the stream and reads its tail. Errors: *StreamError, and what the
// server answers; those may be tried again.
func (p *Publisher) Open(ctx context.Context) (Tail, error) {
	s, err := p.openStream(ctx)
	if err != nil {
		return Tail{}, err
	}
	p.note(s.CachedInfo())
	tail, err := p.readTail(ctx, s)
	if err != nil {
		return Tail{}, fmt.Errorf("read tail of %s: %w", p.name, err)
	}
	return tail, nil
}

// readTail walks back to the newest own frame. A copy of an older frame that somebody stored
// again may lie behind it, so the frame counts only once its predecessor was seen, or
// nothing better comes.
func (p *Publisher) readTail(ctx context.Context, s jetstream.Stream) (Tail, error) {
	state := s.CachedInfo().State
	tail := Tail{LastSeq: state.LastSeq}
	var others []ForeignMessage // none of our frames, or not readable
	for seq, steps := state.LastSeq, 0; state.Msgs > 0 && seq >= state.FirstSeq && seq > 0 && steps < maxWalk; seq, steps = seq-1, steps+1 {
		m, err := p.message(ctx, s, seq)
		if err != nil {
			return tail, err
		}
		switch {
		case m.kind == ownFrame && (!tail.Found || newer(&m.header, &tail.Header)):
			if tail.Found { // what we had was a copy of an older frame
				others = append(others, ForeignMessage{Seq: tail.Seq, Reason: "copy of an older frame"})
			}
			tail.Found, tail.Header, tail.Seq = true, m.header, seq
		case m.kind == ownFrame:
			if precedes(&m.header, &tail.Header) {
				steps = maxWalk
			}
		default:
			others = append(others, ForeignMessage{Seq: seq, Reason: m.reason, Bytes: m.size, damaged: m.kind == unreadable})
		}
	}
	for _, f := range others {
		switch {
		case f.Seq < tail.Seq: // before the frame: of no interest any more
		case f.damaged:
			tail.Damaged = true
			p.cfg.Log.Warn("a frame in the stream cannot be read", "stream", p.name, "seq", f.Seq, "reason", f.Reason)
		default:
			tail.Foreign++
			p.foreign(f)
		}
	}
	return tail, nil
}

// Holds reports whether the stream holds, at a sequence, the frame of an incarnation that has a number and a chain.
// What the server answers with an error may be tried again. It may be called from anywhere.
func (p *Publisher) Holds(ctx context.Context, seq uint64, incarnation uint32, number uint64, chain [32]byte) (bool, error) {
	if seq == 0 {
		return false, nil
	}
	s, err := p.lookup(ctx)
	if err != nil {
		return false, err
	}
	m, err := p.message(ctx, s, seq)
	if err != nil {
		return false, err
	}
	h := &m.header
	return m.kind == ownFrame && h.Incarnation == incarnation && h.Number == number && h.Chain == chain, nil
}

func newer(a, b *wire.Header) bool {
	return a.Incarnation > b.Incarnation || a.Incarnation == b.Incarnation && a.Number > b.Number
}

func precedes(a, b *wire.Header) bool {
	return a.Incarnation == b.Incarnation && a.Number+1 == b.Number || a.Incarnation < b.Incarnation && b.Number == 1
}

type messageKind uint8

const (
	ownFrame messageKind = iota + 1
	foreignMessage
	unreadable // once a frame: damaged, or no longer there
)

type message struct {
	kind   messageKind
	header wire.Header
	reason string
	size   int
}

// message reads and classifies one stored message.
func (p *Publisher) message(ctx context.Context, s jetstream.Stream, seq uint64) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return message{kind: unreadable, reason: "missing"}, nil
	}
	if err != nil {
		return message{}, fmt.Errorf("read message %d of %s: %w", seq, p.name, err)
	}
	return p.classify(m.Data), nil
}

func (p *Publisher) classify(data []byte) message {
	m := message{kind: ownFrame, size: len(data)}
	h, err := wire.ParseHeader(data)
	if err == nil && p.cfg.PublicKey != nil && h.Origin == p.cfg.Origin {
		var raw *wire.RawFrame
		if raw, err = wire.Parse(data); err == nil {
			err = raw.Verify(p.cfg.PublicKey)
		}
	}
	switch {
	case errors.Is(err, wire.ErrNotFrame), errors.Is(err, wire.ErrSignature), errors.Is(err, wire.ErrVersion):
		m.kind, m.reason = foreignMessage, err.Error()
	case err != nil:
		m.kind, m.reason = unreadable, err.Error()
	case h.Origin != p.cfg.Origin || h.Cluster != p.cfg.Cluster:
		m.kind, m.reason = foreignMessage, fmt.Sprintf("frame of %s/%s", h.Cluster, h.Origin)
	}
	m.header = h
	return m
}

func (p *Publisher) foreign(f ForeignMessage) {
	p.metrics.foreign.Inc()
	p.cfg.Log.Warn("foreign message on our subject", "stream", p.name, "seq", f.Seq, "reason", f.Reason)
	p.cfg.OnForeign(f)
}
