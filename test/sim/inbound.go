package sim

import (
	"context"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// inbound is the pipe from one origin's stream into the local database; for the own stream it
// is the self-merge.
type inbound struct {
	s      *sidecar
	origin int
	self   bool
	life   int // counts starts
	open   bool

	// The subscription.
	cp     checkpoint.Checkpoint // behind the last frame taken
	asm    *wire.Assembler
	parts  batch.Parts // what is due of an open transaction
	cache  *wire.RelationCache
	pos    uint64 // the next message to ask for
	under  int    // messages on their way
	gapped bool
	hard   bool // a frame is missing, not just a message damaged
	reads  int  // how often a gap was read again
	stream int  // life of the stream that pos belongs to

	queue []delivery
	app   applier
	merge *replicator.SelfMerge // of the own stream
	// Of the giant transaction that is tried again: its commit, when the barrier was waited for,
	// and when its items are written first.
	giant, record  wal.LSN
	overdue        bool    // that was in vain
	noted, stamped wal.LSN // that was done; it is decided about as things are
	acked          checkpoint.Checkpoint
}

// delivery is a whole packet.
type delivery struct {
	packet *wire.Packet
	kind   conflict.EventKind
	ref    checkpoint.FrameRef
	before checkpoint.Checkpoint
	cp     checkpoint.Checkpoint
}

// fetchWindow is how many messages are asked for at once.
const fetchWindow = 6

func newInbound(s *sidecar, origin int) *inbound {
	return &inbound{s: s, origin: origin, self: origin == s.r.id}
}

func (in *inbound) from() *region { return in.s.w.regions[in.origin] }

func (in *inbound) after(d time.Duration, f func()) {
	n := in.life
	in.s.after(d, func() {
		if in.life == n {
			f()
		}
	})
}

// end gives up what is not committed.
func (in *inbound) end() {
	in.life++
	in.open = false
	in.app.close()
	in.queue = nil
}

// start opens the pipe at the checkpoint that is in the database.
func (in *inbound) start() {
	in.end()
	if o := in.s.out; in.self && (o == nil || !o.framer.Proven()) {
		// Of a database that was restored, the stream may hold changes that it never made.
		in.after(50*time.Millisecond, in.start)
		return
	}
	in.open = true
	cp := in.s.r.db.cps[in.from().name]
	cp.Origin = in.from().name
	in.cp, in.gapped, in.hard, in.reads, in.parts = cp, false, false, 0, batch.Parts{}
	in.app = applier{in: in, cp: cp}
	in.asm, in.cache = wire.NewAssembler(1<<20, in.cache), &wire.RelationCache{}
	in.acked = in.s.r.db.onDisk[in.from().name]
	if in.self {
		in.merge = replicator.NewSelfMerge(in.s.applyPolicy(), in.s.local)
		if in.s.w.cfg.Break != MergedInMemory || in.s.merged < cp.EndLSN {
			in.s.mergedTo(cp.EndLSN)
		}
	}
	in.seek()
}

// again starts over after an error.
func (in *inbound) again() {
	in.end()
	in.after(in.s.w.span(1000, 30_000), in.start)
}

// seek reads again from behind the last frame taken.
func (in *inbound) seek() {
	st := in.from().stream
	in.stream, in.under = st.life, 0
	in.pos = in.cp.StreamSeq + 1
	if st.last < in.cp.StreamSeq || in.pos < st.first() {
		in.pos = st.first()
	}
	in.wake()
}

// missed reads again when the last message was lost: its consumer hears that there is one.
func (in *inbound) missed() {
	if in.open && in.under == 0 && len(in.queue) == 0 && in.pos > in.from().stream.last && in.cp.StreamSeq < in.from().stream.last {
		in.seek()
	}
}

// wake asks for what is there.
func (in *inbound) wake() {
	w, st := in.s.w, in.from().stream
	if !in.open || w.cut(in.s.r.id, in.origin) || in.stream != st.life {
		return
	}
	in.pos = max(in.pos, st.first()) // what is purged, everybody has
	for in.under < fetchWindow && len(in.queue) < 16 {
		m := st.at(in.pos)
		if m == nil {
			return
		}
		in.pos++
		in.under++
		seq, data := m.seq, m.data
		delay := w.span(300, 3000)
		if in.self {
			delay = w.span(50, 400)
		}
		in.send(delay, seq, data)
		switch {
		case w.chance(20): // it comes twice
			in.send(delay+w.span(0, 9000), seq, data)
			in.under++
		}
	}
}

// send is one message on the link.
func (in *inbound) send(delay time.Duration, seq uint64, data []byte) {
	w, life := in.s.w, in.stream
	switch {
	case w.chance(15): // others overtake it
		delay += w.span(1000, 30_000)
	case w.chance(8): // a bit flips on the way
		data = append([]byte(nil), data...)
		data[w.rng.IntN(len(data))] ^= 1 << w.rng.IntN(8)
	}
	lost := w.chance(8)
	in.after(delay, func() {
		if in.stream != life || in.under == 0 {
			return
		}
		in.under--
		if !lost && !w.cut(in.s.r.id, in.origin) {
			in.take(seq, data)
		}
		in.wake()
	})
}

// take holds one message against the checkpoint.
func (in *inbound) take(seq uint64, data []byte) {
	w := in.s.w
	raw, err := wire.Parse(data)
	if err != nil || raw.Cluster != cluster || raw.Origin != in.from().name {
		w.Stats.Quarantined++
		w.note(in.s.r.id, "quarantine", uint64(in.origin), seq)
		in.gap(true) // if it was a frame, the next one tells
		return
	}
	h := &raw.Header
	ref := checkpoint.FrameRef{
		Origin: h.Origin, Epoch: h.Epoch, Incarnation: h.Incarnation, Number: h.Number,
		PrevEndLSN: h.PrevEndLSN, EndLSN: h.EndLSN, Mark: h.Mark, PrevChain: h.PrevChain, Chain: h.Chain, Resync: h.Flags.Has(wire.Resync),
		Resumed: h.Flags.Has(wire.Resumed), Newcomers: h.Flags.Has(wire.Newcomers) || in.origin == in.s.r.id && !h.Flags.Has(wire.Resumed),
		SameWAL: h.Flags.Has(wire.SameWAL),
	}
	v := in.cp.Check(ref)
	if w.cfg.Break == NoChain && v == checkpoint.Gap && ref.Number > in.cp.FrameNo {
		v = checkpoint.Fit
		in.cp.Incarnation, in.cp.FrameNo, in.cp.Chain, in.cp.Epoch = ref.Incarnation, ref.Number-1, ref.PrevChain, ref.Epoch
		in.cp.EndLSN = max(in.cp.EndLSN, ref.PrevEndLSN)
		in.asm.Reset()
	}
	if w.cfg.Break == SameNumber && ref.Incarnation == in.cp.Incarnation && ref.Number == in.cp.FrameNo {
		v = checkpoint.Duplicate
	}
	w.note(in.s.r.id, v.String(), uint64(in.origin)<<32|uint64(ref.Incarnation), ref.Number)
	switch v {
	case checkpoint.Duplicate:
		w.Stats.Duplicates++
		return
	case checkpoint.Gap:
		in.gap(false)
		return
	case checkpoint.Foreign:
		if w.restored { // a frame of the one WAL or the other comes late, or the origin begins anew without a word
			in.gap(false)
			return
		}
		w.fail("region %s: frame %s is foreign", in.s.r.name, h.MsgID())
	}
	if v == checkpoint.NextIncarnation {
		in.parts.Abandon()
	}
	p, err := in.asm.Add(raw)
	parts := in.parts
	if err == nil && p != nil {
		if err := in.prove(ref, h.Kind, p); err != nil {
			in.otherHistory(err)
			return
		}
		parts, err = parts.After(p.Transactions, func(tx *wal.Transaction) bool {
			return h.Kind == wire.Data && in.cp.Covers(ref, tx.CommitLSN, tx.EndLSN)
		})
	}
	if err != nil {
		if w.cfg.Break == NoChain {
			in.asm.Reset()
			return
		}
		if w.restored { // the beginning was of another history
			in.asm.Reset()
			in.gap(false)
			return
		}
		w.fail("region %s: a frame that fits does not assemble: %v", in.s.r.name, err)
	}
	before := in.cp
	in.parts = parts
	in.cp = in.cp.Next(ref)
	in.cp.StreamSeq = seq
	w.must(checkpoint.MustAdvance(before, in.cp, ref.Resync))
	in.gapped, in.hard, in.reads = false, false, 0
	if p == nil {
		return
	}
	kind := conflict.Live
	if h.Kind == wire.Copy {
		kind = conflict.Copy
	}
	if !in.self {
		in.queue = append(in.queue, delivery{p, kind, ref, before, in.cp})
		in.app.wake()
		return
	}
	if w.cfg.Break == NoSelfMerge {
		p = &wire.Packet{}
	}
	d := subscribe.Delivery{Header: *h, StreamSeq: seq, Packet: p, Checkpoint: in.cp, NewIncarnation: ref.Incarnation != before.Incarnation, Resync: ref.Resync}
	w.must(in.merge.Filter(context.Background(), d, func(_ context.Context, d subscribe.Delivery) error {
		if d.StreamSeq != seq { // the position of one that was left out before
			in.queue = append(in.queue, delivery{packet: d.Packet, kind: conflict.Self, before: d.Checkpoint, cp: d.Checkpoint})
			return nil
		}
		in.queue = append(in.queue, delivery{d.Packet, conflict.Self, ref, before, in.cp})
		return nil
	}))
	in.app.wake()
}

// prove holds what the origin repeats against what is applied.
func (in *inbound) prove(ref checkpoint.FrameRef, kind wire.Kind, p *wire.Packet) error {
	rep := in.cp.Repetition(ref)
	if rep == nil || in.s.w.cfg.Break == SameHistory {
		return nil
	}
	if kind == wire.Data {
		for _, tx := range p.Transactions {
			if err := rep.Show(tx); err != nil {
				return err
			}
		}
	}
	return rep.Reach(ref.EndLSN)
}

// otherHistory tells the origin that it repeats other transactions than those applied here.
func (in *inbound) otherHistory(err error) {
	w, cp := in.s.w, in.cp
	if !w.restored {
		w.fail("region %s: %v", in.s.r.name, err)
	}
	in.asm.Reset()
	in.gap(false)
	if !w.cut(in.s.r.id, in.origin) {
		w.after(w.span(300, 3000), func() { in.from().side.rewind(in.s.r.id, cp, err) })
	}
}

// gap reads the stream again, and asks the origin to rewind when that does not help. What
// follows in the stream is looked at all the same: it may hold the next incarnation.
func (in *inbound) gap(soft bool) {
	w := in.s.w
	in.hard = in.hard || !soft
	if in.gapped {
		return
	}
	in.gapped = true
	if !soft {
		w.Stats.Gaps++
	}
	in.after(w.span(5000, 60_000), func() {
		if !in.gapped {
			return
		}
		in.gapped = false
		if in.reads++; in.reads > 2 && in.hard {
			// What is applied is what counts; the frames behind it come again.
			if !w.cut(in.s.r.id, in.origin) && !w.chance(100) {
				cp := in.cp
				w.after(w.span(300, 3000), func() { in.from().side.rewind(in.s.r.id, cp, nil) })
			}
		}
		in.seek()
	})
}

// durable acknowledges what is on disk now.
func (in *inbound) durable() {
	cp, ok := in.s.r.db.onDisk[in.from().name]
	if !ok || cp == in.acked {
		return
	}
	in.acked = cp
	in.sendAck()
}

// sendAck tells the origin. Acknowledgements may get lost and are repeated.
func (in *inbound) sendAck() {
	w, cp := in.s.w, in.acked
	if w.cfg.Break == AckEarly {
		cp = in.app.cp
	}
	if in.self {
		in.s.confirm()
		return
	}
	if cp.Incarnation == 0 || w.cut(in.s.r.id, in.origin) || w.chance(100) {
		return
	}
	a := ack{
		epoch: cp.Epoch, applied: cp.EndLSN, end: cp.Seen, seq: cp.StreamSeq, inc: cp.Incarnation, number: cp.FrameNo, chain: cp.Chain, at: time.Now(),
	}
	w.after(w.span(200, 3000), func() {
		if !w.cut(in.s.r.id, in.origin) {
			in.from().side.acked(in.s.r.id, a)
		}
	})
}
