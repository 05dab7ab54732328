package subscribe

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	// VerbRewind asks an origin to publish again from its slot, in a new incarnation.
	VerbRewind = "rewind"

	// Frames that came too early are kept, in case the stream was stored out of order.
	maxHeld      = 64
	maxHeldBytes = 8 << 20
	heldFor      = 128 // frames that may be accepted before an early one is given up

	rewindTimeout = 10 * time.Second
)

// RewindRequest is the body of a rewind request: where the asking region stands.
type RewindRequest struct {
	Region     string                `json:"region"`
	Checkpoint checkpoint.Checkpoint `json:"checkpoint"`
	Reason     string                `json:"reason"`
	// History: what the origin repeats is not what it published before.
	History bool `json:"history,omitempty"`
}

// RewindReply is the answer. With Granted, Incarnation is or will be in the stream and begins
// at or below the checkpoint. Without, Reason says why the WAL from there on is no more.
type RewindReply struct {
	Granted     bool    `json:"granted"`
	Incarnation uint32  `json:"incarnation,omitempty"`
	Start       wal.LSN `json:"start,omitempty"`     // of the incarnation
	Available   wal.LSN `json:"available,omitempty"` // the slot holds the WAL from here on
	Reason      string  `json:"reason,omitempty"`
}

// gap is an open hole behind the cursor.
type gap struct {
	err     GapError
	reread  bool // the stream was read again from the last good frame
	history bool // the origin shows another history; no frame to come can mend it
	askAt   time.Time
	asked   int
}

type heldFrame struct {
	raw  *wire.RawFrame
	seq  uint64
	left int
}

// otherHistory handles a frame that repeats other transactions than those applied. The cursor
// stays, and the origin is asked at once, so that both sides name it.
func (r *follower) otherHistory(seq uint64, raw *wire.RawFrame, ref checkpoint.FrameRef, why error) error {
	r.asm.Reset()
	err := r.missing(seq, raw, ref, why.Error())
	if !r.gap.history {
		r.gap.history, r.gap.askAt = true, time.Now()
		r.gap.err.Reason = why.Error()
		r.publishGap()
	}
	return err
}

func (r *follower) seeking() bool { return r.gap != nil && r.gap.reread }

// missing handles a frame that does not continue the cursor. First everything behind the
// cursor is read once more. If that does not help, reading goes on ahead, for the missing
// frame stored late or an incarnation that covers us, and tend asks for one.
func (r *follower) missing(seq uint64, raw *wire.RawFrame, ref checkpoint.FrameRef, reason string) error {
	r.hold(seq, raw, ref)
	if r.gap == nil {
		from, to := r.cursor.EndLSN, max(r.cursor.EndLSN, ref.PrevEndLSN)
		r.gap = &gap{askAt: time.Now().Add(r.s.cfg.RewindDelay), err: GapError{
			Origin: r.s.cfg.Origin, Incarnation: r.cursor.Incarnation, Frame: r.cursor.FrameNo,
			From: from, To: to, Since: time.Now(), Reason: r.because(reason),
		}}
		r.s.metrics.gaps.Inc()
		r.s.metrics.gap.Set(1)
		r.publishGap()
		r.s.cfg.Log.Warn("frames are missing", "origin", ref.Origin, "from", from.String(), "to", to.String(),
			"have", fmt.Sprintf("%d/%d", r.cursor.Incarnation, r.cursor.FrameNo), "got", fmt.Sprintf("%d/%d", ref.Incarnation, ref.Number),
			"reason", r.gap.err.Reason)
	}
	if !r.gap.reread {
		r.gap.reread = true
		r.examined = 0
		return errReread
	}
	return nil
}

// because names a refused message as the likely cause.
func (r *follower) because(reason string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.state.LastRefused != "" && r.kept > r.cursor.StreamSeq {
		return reason + "; before it, a message was refused: " + r.s.state.LastRefused
	}
	return reason
}

func (r *follower) publishGap() {
	g := r.gap.err
	r.s.note(func(st *State) { st.Gap = &g })
}

// healed closes the gap, after a frame that continues the cursor.
func (r *follower) healed() {
	if r.gap == nil {
		return
	}
	r.s.cfg.Log.Info("nothing is missing any more", "origin", r.s.cfg.Origin, "lsn", r.cursor.EndLSN.String(),
		"incarnation", r.cursor.Incarnation, "after", time.Since(r.gap.err.Since).Round(time.Millisecond))
	r.gap = nil
	r.s.metrics.gap.Set(0)
	r.s.note(func(st *State) { st.Gap = nil })
}

// hold keeps a frame that may turn out to have come too early.
func (r *follower) hold(seq uint64, raw *wire.RawFrame, ref checkpoint.FrameRef) {
	if ref.Incarnation != r.cursor.Incarnation || ref.Number <= r.cursor.FrameNo+1 || len(r.held) >= maxHeld {
		return
	}
	bytes := len(raw.Payload)
	for _, h := range r.held {
		bytes += len(h.raw.Payload)
	}
	if bytes <= maxHeldBytes {
		r.held[ref.Number] = &heldFrame{raw: raw, seq: seq, left: heldFor}
	}
}

// early returns the held frame whose turn has come.
func (r *follower) early() *heldFrame {
	f := r.held[r.cursor.FrameNo+1]
	if f == nil {
		return nil
	}
	delete(r.held, r.cursor.FrameNo+1)
	if r.cursor.Check(frameRef(&f.raw.Header)) != checkpoint.Fit {
		return nil
	}
	return f
}

// resumeAt is the sequence behind which a restart has to read, after the frame at seq: not
// behind frames that are still held.
func (r *follower) resumeAt(seq uint64) uint64 {
	at := max(seq, r.cursor.StreamSeq)
	if r.fresh {
		at = seq
	}
	for n, h := range r.held {
		if h.left--; h.left <= 0 || n <= r.cursor.FrameNo {
			delete(r.held, n)
			continue
		}
		at = min(at, h.seq-1)
	}
	return at
}

// tend asks the origin to rewind, once the stream is read to its end and still lacks what we need.
func (r *follower) tend(ctx context.Context) error {
	if !r.seeking() || r.pending > 0 || time.Now().Before(r.gap.askAt) || r.s.cfg.Control == nil {
		return nil
	}
	// An incarnation may be on its way, and if none helps, asking more often does not either.
	r.gap.askAt = time.Now().Add(min(r.s.cfg.RewindEvery<<min(r.gap.asked, 8), r.s.cfg.GapRetry))
	r.gap.asked++
	reply, err := r.rewind(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		r.s.cfg.Log.Warn("asking the origin to rewind", "origin", r.s.cfg.Origin, "error", err)
	case reply.Granted:
		r.gap.err.Refused = ""
		r.s.cfg.Log.Info("the origin rewinds", "origin", r.s.cfg.Origin, "incarnation", reply.Incarnation, "start", reply.Start.String())
	default:
		r.gap.askAt = time.Now().Add(r.s.cfg.GapRetry)
		if r.gap.err.Refused == "" {
			r.s.cfg.Log.Error("the origin cannot send the missing changes again; it takes a resync", "origin", r.s.cfg.Origin,
				"from", r.gap.err.From.String(), "available", reply.Available.String(), "reason", reply.Reason)
		}
		r.gap.err.Refused = reply.Reason
		if reply.Available > r.gap.err.From {
			r.gap.err.To = reply.Available
		}
		r.publishGap()
	}
	return nil
}

func (r *follower) rewind(ctx context.Context) (RewindReply, error) {
	r.s.metrics.rewinds.Inc()
	r.s.note(func(st *State) { st.Rewinds++ })
	var reply RewindReply
	body, err := json.Marshal(RewindRequest{Region: r.s.cfg.Region, Checkpoint: r.cursor, Reason: r.gap.err.Reason, History: r.gap.history})
	if err != nil {
		return reply, fmt.Errorf("encode rewind request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, rewindTimeout)
	defer cancel()
	data, err := r.s.cfg.Control.Request(ctx, r.s.cfg.Origin, VerbRewind, body)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(data, &reply); err != nil {
		return reply, fmt.Errorf("decode rewind reply: %w", err)
	}
	return reply, nil
}
