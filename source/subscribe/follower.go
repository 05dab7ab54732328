package subscribe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// follower is the state of Run's reading goroutine, which owns it.
type follower struct {
	s      *Subscription
	cursor checkpoint.Checkpoint // the last good frame; ahead of what is applied
	asm    *wire.Assembler
	parts  batch.Parts // of the transaction that the last good packet leaves open
	// fresh and resync go with the first packet of an incarnation.
	fresh, resync bool

	created  time.Time // of the stream that examined and kept refer to
	examined uint64    // last sequence that was looked at
	kept     uint64    // last sequence that went into quarantine
	pending  uint64    // frames behind the last message, at the server

	refusals refusals

	gap    *gap
	pace   pacing
	heavy  bool                  // the last good frame is large, or took too long to come
	opened int                   // sessions, from a random number on
	held   map[uint64]*heldFrame // frames that came too early, by number
}

func newFollower(s *Subscription, from checkpoint.Checkpoint) *follower {
	s.note(func(st *State) { st.Read, st.OriginLSN = from, from.EndLSN })
	return &follower{
		s: s, cursor: from, asm: wire.NewAssembler(s.cfg.MaxPacket, &wire.RelationCache{}), held: map[uint64]*heldFrame{},
		opened: rand.IntN(wire.Consumers), pace: newPacing(s.cfg.WindowBytes/pulls, s.cfg.Heartbeat*5/2+50*time.Millisecond),
	}
}

// run opens one session after the other until ctx ends.
func (r *follower) run(ctx context.Context) error {
	backoff := time.Duration(0)
	for {
		opened := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fatal := new(fatalError); errors.As(err, &fatal) {
			return fatal.err
		}
		if errors.Is(err, errReread) || time.Since(opened) > 10*time.Second {
			backoff = 0
		}
		r.trouble(err)
		backoff = min(max(2*backoff, 20*time.Millisecond), 2*time.Second)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fatalError ends Run.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

func (r *follower) session(ctx context.Context) error {
	if err := failpoint.Hit("subscription_open"); err != nil {
		return &fatalError{err}
	}
	start, err := r.locate(ctx)
	if err != nil {
		return err
	}
	s, err := r.open(ctx, start)
	if err != nil {
		return err
	}
	defer s.close()
	r.s.metrics.sessions.Inc()
	r.s.cfg.Log.Debug("reading", "origin", r.s.cfg.Origin, "from_seq", start, "frame", r.cursor.FrameNo)
	return s.run(ctx)
}

// locate finds where to read on. A sequence counts only while the message there is the frame
// that we remember: a stream can be purged, cut back, or deleted and made again. In any doubt
// everything is read, and the frames' own numbers tell. A large message is not fetched for that: a
// slow link would carry nothing else.
func (r *follower) locate(ctx context.Context) (uint64, error) {
	call, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	name := wire.StreamName(r.s.cfg.Cluster, r.s.cfg.Origin)
	stream, err := r.s.cfg.JS.Stream(call, name)
	if err != nil {
		return 0, fmt.Errorf("look up stream %s: %w", name, err)
	}
	info := stream.CachedInfo()
	st := info.State
	r.alive()
	r.s.note(func(s *State) { s.LastSeq = st.LastSeq })
	if !info.Created.Equal(r.created) {
		r.created, r.examined, r.kept = info.Created, 0, 0
	}
	r.pending = st.Msgs
	want := r.cursor.StreamSeq
	if r.seeking() && r.examined > 0 && r.examined <= st.LastSeq {
		return max(r.examined+1, st.FirstSeq), nil // what lies before has been looked through
	}
	switch {
	case want == 0 || st.Msgs == 0 && st.LastSeq < want || st.FirstSeq > want:
		return st.FirstSeq, nil
	case st.LastSeq < want:
		r.s.cfg.Log.Warn("the stream is shorter than it was; reading all of it", "origin", r.s.cfg.Origin, "last_seq", st.LastSeq, "expected", want)
		return st.FirstSeq, nil
	case r.heavy && r.seeking():
		return st.FirstSeq, nil
	case r.heavy:
		return want + 1, nil // what comes next shows whether it follows
	}
	m, err := stream.GetMsg(call, want)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		r.heavy = errors.Is(err, context.DeadlineExceeded)
		return 0, fmt.Errorf("read message %d of %s: %w", want, name, err)
	}
	if err == nil {
		if h, err := wire.ParseHeader(m.Data); err == nil && h.Chain == r.cursor.Chain {
			return want + 1, nil
		}
	}
	r.s.cfg.Log.Warn("the stream does not hold our last frame where it was; reading all of it", "origin", r.s.cfg.Origin, "seq", want)
	return st.FirstSeq, nil
}

// heavyFrame is the size from which a message is not fetched again to look at it.
const heavyFrame = 32 << 10

// message checks one message and hands on what it completes.
func (r *follower) message(ctx context.Context, seq uint64, data []byte) error {
	raw, err := wire.Parse(data)
	if err == nil && (raw.Cluster != r.s.cfg.Cluster || raw.Origin != r.s.cfg.Origin) {
		err = fmt.Errorf("frame of %q/%q", raw.Cluster, raw.Origin)
	}
	if err == nil && r.s.cfg.PublicKey != nil {
		err = raw.Verify(r.s.cfg.PublicKey)
	}
	if err != nil {
		if err := r.refuse(ctx, seq, err.Error(), data); err != nil {
			return err
		}
		r.examined = seq
		return nil
	}
	if err := r.frame(ctx, seq, raw, data); err != nil {
		return err
	}
	r.examined = seq
	for f := r.early(); f != nil; f = r.early() {
		if err := r.frame(ctx, f.seq, f.raw, nil); err != nil {
			return err
		}
	}
	return nil
}

// frame holds an intact frame of the origin against the cursor.
func (r *follower) frame(ctx context.Context, seq uint64, raw *wire.RawFrame, data []byte) error {
	ref := frameRef(&raw.Header)
	// What of its own WAL a region has not merged yet is held by its slot, wherever an incarnation begins.
	ref.Newcomers = ref.Newcomers || r.s.cfg.Origin == r.s.cfg.Region && !ref.Resumed
	v := r.cursor.Check(ref)
	if v != checkpoint.Foreign {
		r.s.note(func(st *State) {
			if v == checkpoint.NextIncarnation && (ref.Resync || !ref.Epoch.SameWAL(r.cursor.Epoch)) {
				st.OriginLSN, st.SentAt = 0, 0 // what was seen may be of another WAL, and above all that this one will ever say
			}
			st.OriginLSN, st.SentAt = max(st.OriginLSN, ref.EndLSN), max(st.SentAt, raw.SentAt)
		})
	}
	switch v {
	case checkpoint.Fit, checkpoint.NextIncarnation:
		return r.accept(ctx, seq, raw, ref, v, data)
	case checkpoint.Duplicate:
		r.s.metrics.duplicates.Inc()
		r.s.note(func(st *State) { st.Duplicates++ })
		return nil
	case checkpoint.Gap:
		return r.missing(seq, raw, ref, "a frame does not follow the last one")
	}
	if r.gap == nil { // one of them is enough to see what came
		if err := r.refuse(ctx, seq, fmt.Sprintf("frame of another WAL: %s, ours is %s", ref.Epoch, r.cursor.Epoch), data); err != nil {
			return err
		}
	}
	return r.missing(seq, raw, ref, fmt.Sprintf("the origin's log changed from %s to %s", r.cursor.Epoch, ref.Epoch))
}

// accept moves the cursor behind the frame and delivers the packet that it completes.
func (r *follower) accept(ctx context.Context, seq uint64, raw *wire.RawFrame, ref checkpoint.FrameRef, v checkpoint.Verdict, data []byte) error {
	if v == checkpoint.NextIncarnation {
		if r.gap != nil {
			r.gap.history = false
		}
		r.s.cfg.Log.Info("the origin opens an incarnation", "origin", ref.Origin, "incarnation", ref.Incarnation,
			"from", ref.PrevEndLSN.String(), "applied", r.cursor.EndLSN.String(), "resync", ref.Resync)
		r.asm.Reset()
		r.parts.Abandon()
		clear(r.held)
		r.fresh, r.resync = true, ref.Resync
	}
	packet, err := r.asm.Add(raw)
	if err == nil && packet != nil {
		err = packet.Check(raw.Kind)
	}
	parts := r.parts
	if err == nil && packet != nil {
		// First of all: parts of another history may look as if they came without order.
		if err := prove(r.cursor, ref, raw.Kind, packet); err != nil {
			return r.otherHistory(seq, raw, ref, err)
		}
		parts, err = r.parts.After(packet.Transactions, func(tx *wal.Transaction) bool {
			return raw.Kind == wire.Data && r.cursor.Covers(ref, tx.CommitLSN, tx.EndLSN)
		})
	}
	if err != nil {
		// Intact, ours, next in line, and yet not readable, or without sense: it can be neither
		// applied nor skipped. The origin has to send what belongs there.
		r.asm.Reset()
		if err := r.refuse(ctx, seq, err.Error(), data); err != nil {
			return err
		}
		return r.missing(seq, raw, ref, err.Error())
	}
	before := r.cursor
	r.parts = parts
	r.cursor = before.Next(ref)
	r.cursor.StreamSeq = r.resumeAt(seq)
	r.heavy = data == nil || len(data) > heavyFrame
	r.healed()
	r.s.metrics.frames.Inc()
	r.s.metrics.bytes.Add(float64(raw.PayloadSize))
	r.s.note(func(st *State) { st.Frames, st.RefusedSince = st.Frames+1, time.Time{} })
	if packet == nil {
		return nil
	}
	if raw.Kind == wire.Data {
		r.dropCovered(before, ref, packet)
	}
	for _, tx := range packet.Transactions {
		if !tx.More {
			r.cursor.Transactions++
		}
	}
	if raw.LastCommit > 0 {
		r.cursor.CommitTime = raw.LastCommit
	}
	d := Delivery{
		Header: raw.Header, StreamSeq: seq, Packet: packet, Bytes: max(int(raw.PacketSize), sizeOf(packet.Transactions)), Checkpoint: r.cursor,
		NewIncarnation: r.fresh, Resync: r.resync,
	}
	r.fresh, r.resync = false, false
	r.s.note(func(st *State) { st.Read = r.cursor })
	return r.s.enqueue(ctx, d)
}

// prove holds what the origin repeats against what is applied.
func prove(at checkpoint.Checkpoint, ref checkpoint.FrameRef, kind wire.Kind, packet *wire.Packet) error {
	rep := at.Repetition(ref)
	if rep == nil {
		return nil
	}
	if kind == wire.Data { // copied rows and repairs have no place in the WAL
		for _, tx := range packet.Transactions {
			if err := rep.Show(tx); err != nil {
				return err
			}
		}
	}
	return rep.Reach(ref.EndLSN)
}

// dropCovered removes what a rewound origin repeats. Copied rows and repairs have no place in
// the origin's WAL and are never covered.
func (r *follower) dropCovered(before checkpoint.Checkpoint, ref checkpoint.FrameRef, packet *wire.Packet) {
	kept := packet.Transactions[:0:0]
	for _, tx := range packet.Transactions {
		if !before.Covers(ref, tx.CommitLSN, tx.EndLSN) {
			kept = append(kept, tx)
		}
	}
	if n := len(packet.Transactions) - len(kept); n > 0 {
		r.s.metrics.duplicates.Inc()
		r.s.note(func(st *State) { st.Duplicates++ })
		packet.Transactions = kept
	}
}

// refuse puts a message into quarantine, once for each stream.
func (r *follower) refuse(ctx context.Context, seq uint64, reason string, data []byte) error {
	if seq <= r.kept {
		return nil
	}
	if err := r.s.cfg.Quarantine(ctx, Refused{Origin: r.s.cfg.Origin, StreamSeq: seq, Reason: reason, Data: data}); err != nil {
		return fmt.Errorf("quarantine message %d of %s: %w", seq, r.s.cfg.Origin, err)
	}
	r.kept = seq
	r.s.metrics.refused.Inc()
	r.s.note(func(st *State) {
		st.Refused, st.LastRefused = st.Refused+1, reason
		if st.RefusedSince.IsZero() {
			st.RefusedSince = time.Now()
		}
	})
	if r.refusals.left(time.Now()) {
		r.s.cfg.Log.Warn("refused a message", "origin", r.s.cfg.Origin, "seq", seq, "bytes", len(data), "reason", reason)
	}
	return nil
}

// refusalLines is how many refused messages are logged in a minute; the quarantine and the counters
// have them all.
const refusalLines = 20

// refusals keeps somebody who may publish on the subject from filling the log.
type refusals struct {
	since time.Time
	lines int
}

func (r *refusals) left(now time.Time) bool {
	if now.Sub(r.since) > time.Minute {
		r.since, r.lines = now, 0
	}
	r.lines++
	return r.lines <= refusalLines
}

func frameRef(h *wire.Header) checkpoint.FrameRef {
	return checkpoint.FrameRef{
		Origin: h.Origin, Epoch: h.Epoch, Incarnation: h.Incarnation, Number: h.Number,
		PrevEndLSN: h.PrevEndLSN, EndLSN: h.EndLSN, Mark: h.Mark, PrevChain: h.PrevChain, Chain: h.Chain, Resync: h.Flags.Has(wire.Resync),
		Resumed: h.Flags.Has(wire.Resumed), Newcomers: h.Flags.Has(wire.Newcomers), SameWAL: h.Flags.Has(wire.SameWAL),
	}
}

// alive notes a sign of life, seen one with a message, trouble the lack of one.
func (r *follower) alive() {
	r.s.metrics.backlog.Set(float64(r.pending) + float64(r.s.queued.Load()))
	r.s.metrics.reachable.Set(1)
	r.s.note(func(st *State) { st.Reachable, st.Err, st.SeenAt = true, nil, time.Now() })
}

func (r *follower) seen(seq, pending uint64) {
	r.s.cfg.Heard()
	r.pending = pending
	r.s.metrics.reachable.Set(1)
	r.s.metrics.backlog.Set(float64(pending) + float64(r.s.queued.Load()))
	r.s.note(func(st *State) {
		st.Reachable, st.Err, st.SeenAt = true, nil, time.Now()
		st.LastSeq, st.Backlog = seq+pending, pending
	})
}

func (r *follower) trouble(err error) {
	if errors.Is(err, errReread) || errors.Is(err, errEnded) {
		r.s.cfg.Log.Debug("opening the stream again", "origin", r.s.cfg.Origin, "error", err)
		return
	}
	// A stream that is not there (yet) is an answer; silence is none.
	reachable := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound)
	if !reachable {
		r.s.metrics.reachable.Set(0)
	}
	var was bool
	r.s.note(func(st *State) {
		was = st.Reachable
		st.Reachable, st.Err = reachable, err
	})
	if was && !reachable {
		r.s.cfg.Log.Warn("the origin's stream does not answer", "origin", r.s.cfg.Origin, "error", err)
	}
}

func sizeOf(txs []*wal.Transaction) int {
	n := 0
	for _, tx := range txs {
		n += tx.Size()
	}
	return n
}
