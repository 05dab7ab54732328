package sim

import (
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/replicator/framing"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

const (
	cluster   = "sim"
	heartbeat = time.Second
	linger    = 3 * time.Millisecond
)

// outbound is one run of the pipe from the slot to the stream.
type outbound struct {
	s      *sidecar
	reader *reader
	stamps stamping
	framer *framing.Framer

	next    int // transaction of the WAL that is due
	pumping bool
	syncing bool
	more    bool
	flushed bool      // what is gathered was handed on, because stamping waits for it
	armed   bool      // the framer is asked again when what it gathers is due
	stalled time.Time // since when stamping waits

	queue    []wire.Frame // cut, not sent
	inFlight int
	expected uint64 // last sequence number once all in flight are stored
	arrival  time.Time
	flying   []flight // sent, oldest first
}

// publish opens the pipe: where the stream ends, where the slot begins, whether that fits.
func (s *sidecar) publish() {
	w, d, st := s.w, s.r.db, s.r.stream
	t, from := st.tail(), d.confirmed
	again := func() { s.after(time.Second, s.reopen) }
	sit := s.situation(t, from)
	dec := sit.Begin()
	if w.cfg.Ahead {
		from = sit.Reading(dec, d.clocks())
	}
	at := t.header.Position()
	past, newcomers := sit.Past(), false
	if w.cfg.Break == SameHistory {
		past = nil
		if dec.Step == checkpoint.Stop {
			dec = checkpoint.Decision{Step: checkpoint.Renew, Incarnation: max(d.incarnation, t.header.Incarnation) + 1}
		}
	}
	switch dec.Step {
	case checkpoint.Stop:
		if from <= at.EndLSN && !w.restored {
			w.fail("region %s: a gap that is none: %s", s.r.name, dec.Why)
		}
		w.Stats.Gaps++
		d.noteGap(dec.History, dec.Why)
		again()
		return
	case checkpoint.Resume, checkpoint.Renew, checkpoint.Reopen:
		newcomers = d.stored.Newcomer
		d.incarnation, d.stored.Epoch, d.stored.Newcomer = dec.Incarnation, d.epoch, false
		d.flush()
		at = wire.Position{Incarnation: d.incarnation}
		at.EndLSN, at.Mark = sit.Opening(dec)
		if dec.Step == checkpoint.Renew && at.EndLSN > d.confirmed {
			w.Stats.Passed++
		}
		if dec.Step == checkpoint.Reopen {
			d.reopen(dec.Incarnation)
			past = nil
			s.durable, s.told = 0, 0
			s.in[s.r.id].start()
		}
		s.step("incarnation stored")
		s.r.unsure = false
	}
	if s.prove {
		s.prove = false
		s.proveFirst(framing.Config{Encoder: wire.EncoderConfig{Cluster: cluster, Origin: s.r.name}, Tail: at, Past: past}, from)
	}
	d.stored.Resync, d.stored.Gap = false, d.stored.History
	if d.copies {
		d.copied = wire.Position{}
		s.after(w.span(1000, 50_000), s.copyTables)
	}
	s.newLife = false
	w.note(s.r.id, "publish", uint64(at.Incarnation), at.Number)
	o := &outbound{
		s: s, expected: st.last,
	}
	s.durable, s.frame = max(s.durable, at.EndLSN), at.Number
	s.chains.Begin(at.Incarnation, at.Number, at.Chain)
	for i := range s.acks {
		s.acks[i].found = false
	}
	o.reader = newReader(d, true, func() bool { return w.rng.IntN(20) == 0 })
	s.local.Index.Reading()
	d.beginClock(s.local.Index, from)
	o.stamps = stamping{s: s, stamper: replicator.NewStamper(s.policy, items{s, s.local.Index, true})}
	o.framer = framing.New(framing.Config{
		Encoder: wire.EncoderConfig{
			Cluster: cluster, Origin: s.r.name, Epoch: d.epoch, Compress: w.cfg.Compress, MaxFrame: w.cfg.MaxFrame, MaxPacket: 1 << 20,
		},
		Tail: at, Past: past, Resync: dec.Step == checkpoint.Reopen, Resumed: dec.Step == checkpoint.Resume, Newcomers: newcomers, SameWAL: dec.Step == checkpoint.Reopen && !dec.History, FrameBytes: w.cfg.FrameBytes, Linger: linger, Heartbeat: heartbeat, Put: o.put,
	}, time.Now())
	for o.next < len(d.wal) && d.wal[o.next].end <= from {
		o.next++
	}
	s.out = o
	if from > d.confirmed {
		s.probe("ahead of the slot", from)
	}
	s.synced = 0
	if w.cfg.Lazy {
		s.durable = at.EndLSN
	}
	o.sync()
	w.must(o.framer.Begin(time.Now()))
	o.wake()
	o.beat()
}

// proveFirst reads the WAL once, without stamping it, until it is proved to be the one that was
// published, as Outbound.Prove does.
func (s *sidecar) proveFirst(cfg framing.Config, from wal.LSN) {
	d := s.r.db
	r := newReader(d, false, func() bool { return false })
	f := framing.New(cfg, time.Now())
	for _, tx := range d.wal[:d.flushed] {
		if tx.end <= from || f.Proven() {
			continue
		}
		r.read(tx, func(out *wal.Transaction) {
			told, err := replicator.TellsOf(out)
			s.w.must(err)
			if !told.Any() && f.Empty(out) {
				err = f.Passed(out.EndLSN)
			} else {
				_, err = f.Known(out)
			}
			if err != nil {
				s.otherHistory(err)
			}
		})
	}
}

// situation gathers what decides where to begin.
func (s *sidecar) situation(t tail, from wal.LSN) checkpoint.Situation {
	w, d, h := s.w, s.r.db, t.header
	sit := checkpoint.Situation{
		Epoch: d.epoch, WALEnd: d.flushLSN(), Slot: checkpoint.Slot{Found: true, Confirmed: from}, Renew: s.newLife, Unsure: s.r.unsure, Peers: len(w.regions) - 1,
		Tail: checkpoint.Tail{
			Found: t.found, Damaged: t.damaged, Open: h.Flags.Has(wire.Open), Epoch: h.Epoch,
			Incarnation: h.Incarnation, EndLSN: h.EndLSN, Mark: h.Mark,
		},
		Stored: d.stored,
	}
	if cp := d.cps[s.r.name]; w.cfg.Ahead && cp.Epoch.SameWAL(d.epoch) {
		sit.Merged = cp.EndLSN
	}
	sit.Unread = d.cps[s.r.name].Incarnation < d.stored.Reopened
	sit.Stored.Incarnation = d.incarnation
	if w.cfg.Break == StaleTail && t.found {
		sit.Stored.Incarnation = h.Incarnation // its last incarnation is lost
	}
	for _, r := range w.regions {
		if r.id != s.r.id && s.acks[r.id].inc != 0 {
			sit.Acks = append(sit.Acks, s.word(r.id))
		}
	}
	if w.cfg.Break == TrustsPeers && len(sit.Acks) == sit.Peers {
		sit.Merged, sit.Stored.Passed = sit.WALEnd, sit.WALEnd
		for _, a := range sit.Acks {
			sit.Stored.Passed = min(sit.Stored.Passed, a.EndLSN)
		}
	}
	return sit
}

func (s *sidecar) policy(n wal.RelationName) replicator.TablePolicy {
	t := s.r.db.tables[tableOf(n)]
	return replicator.TablePolicy{Version: "version", UpdatedAt: "updated_at", Resolve: t.pol}
}

func tableOf(n wal.RelationName) int { return int(n.Name[1] - '0') }

func (o *outbound) after(d time.Duration, f func()) {
	o.s.after(d, func() {
		if o.s.out == o {
			f()
		}
	})
}

// wake makes the pipe read on.
func (o *outbound) wake() {
	if o.pumping {
		return
	}
	o.pumping = true
	o.after(o.s.w.span(20, 400), o.pump)
}

// pump receives one transaction from the server, or learns that there is none.
func (o *outbound) pump() {
	o.one()
	o.pumping = false
	if o.more {
		o.wake()
	}
}

// one takes one transaction; it sets more when there may be another one.
func (o *outbound) one() {
	o.more = false
	d := o.s.r.db
	if len(o.queue) > 32 {
		return // back-pressure; an acknowledgement wakes it
	}
	if o.next >= d.flushed {
		if end := d.flushLSN(); !o.reader.dec.InTransaction() {
			o.passed(end) // a keepalive
			o.s.local.Stamped(end)
		}
		o.due()
		return
	}
	tx := d.wal[o.next]
	o.more = true
	if o.held(tx) {
		o.due()
		return
	}
	o.stalled = time.Time{}
	o.framer.Count(1, len(tx.changes), time.Now())
	o.reader.read(tx, o.transaction)
	o.s.local.Stamped(tx.end)
	o.next++
	o.due()
}

// blockedFor is how long stamping waits for an applier's open transaction before it ends its
// session.
const blockedFor = 3 * time.Second

// held reports whether the stamps of a transaction depend on one of an applier that is open, or
// on own changes that are not merged.
func (o *outbound) held(tx *walTx) bool {
	if tx.applied || o.s.w.cfg.Break == BlindStamps {
		return false
	}
	var refs []tombstone.Ref
	for i := range tx.changes {
		c := &tx.changes[i]
		t := o.s.r.db.tables[c.table]
		for _, row := range []wal.Tuple{c.old, c.new} {
			if row != nil {
				refs = append(refs, tombstone.Ref{Relation: t.rel.Ref(), Key: t.keyText(row)})
			}
		}
	}
	_, wait := o.s.local.Index.Below(tx.commit, refs, make([]conflict.Item, len(refs)))
	if wait == nil {
		return false
	}
	o.stall(tx.commit, refs)
	return true
}

// stall does what LocalWAL.stall does while stamping waits.
func (o *outbound) stall(at wal.LSN, refs []tombstone.Ref) {
	o.s.w.Stats.Stalls++
	if o.stalled.IsZero() {
		o.stalled, o.flushed = time.Now(), false
	}
	switch {
	case o.s.local.Stalled() && !o.flushed:
		o.flushed = true
		if !o.framer.Proven() { // and the self-merge waits for that
			o.s.prove = true
			o.s.w.Stats.Proofs++
			o.s.reopen()
			return
		}
		o.s.w.must(o.framer.Flush(time.Now()))
	case time.Since(o.stalled) > blockedFor:
		o.stalled = time.Now()
		for _, b := range o.s.local.Blockers(at, refs) {
			pid := b.PID
			if pid > 100 {
				o.s.again[pid-101].end()
				continue
			}
			o.s.in[pid-1].again()
		}
	}
}

// due lets the framer do what is due.
func (o *outbound) due() {
	now := time.Now()
	at, err := o.framer.Next(now, o.inFlight+len(o.queue))
	o.s.w.must(err)
	if !at.IsZero() && !o.armed {
		o.armed = true
		o.after(at.Sub(now), func() {
			o.armed = false
			o.due()
		})
	}
}

// transaction stamps and frames what the decoder gave out.
func (o *outbound) transaction(tx *wal.Transaction) {
	told, err := replicator.TellsOf(tx)
	o.s.w.must(err)
	if !told.Any() && o.framer.Empty(tx) {
		o.passed(tx.EndLSN)
		return
	}
	if tx.More {
		o.s.w.Stats.Parts++
	}
	o.stamp(tx)
	known, err := o.framer.Known(tx)
	if err != nil {
		o.s.otherHistory(err)
	}
	if !known {
		if o.s.w.cfg.Break != NoDigests {
			o.values(tx)
		}
		o.s.w.must(o.framer.Add(told.With(tx), time.Now()))
	}
}

// passed tells the framer of a position without anything to publish.
func (o *outbound) passed(at wal.LSN) {
	if err := o.framer.Passed(at); err != nil {
		o.s.otherHistory(err)
	}
}

// put takes a frame from the framer.
func (o *outbound) put(f wire.Frame) error {
	w := o.s.w
	w.Stats.Frames++
	if !f.Header.Flags.Has(wire.First | wire.Last) {
		w.Stats.Fragments++
	}
	o.queue = append(o.queue, f)
	o.send()
	return nil
}

// beat publishes a position when nothing else does.
func (o *outbound) beat() {
	o.after(heartbeat/2, func() {
		o.wake()
		if len(o.queue) == 0 {
			o.s.w.must(o.framer.Beat(time.Now()))
		}
		o.beat()
	})
}
