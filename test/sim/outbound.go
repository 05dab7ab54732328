package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/replicator"
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
	log    *reader
	stamps stamping
	enc    *wire.Encoder
	at     wire.Position // where the stream ended
	slot   wal.LSN       // where the log is read from

	next      int // transaction of the log that is due
	pumping   bool
	decoded   wal.LSN
	inParts   bool
	lingering bool
	lastCut   time.Time
	waiting   []extra

	queue    []wire.Frame // cut, not sent
	inFlight int
	expected uint64 // last sequence number once all in flight are stored
	arrival  time.Time
	tracker  *checkpoint.Tracker
}

// publish opens the pipe: where the stream ends, where the slot begins, whether that fits.
func (s *sidecar) publish() {
	w, d, st := s.w, s.r.db, s.r.stream
	t, from := st.tail(), d.confirmed
	again := func() { s.after(time.Second, s.reopen) }
	fresh := t.found && !t.damaged && t.header.Incarnation < d.incarnation && w.cfg.Break != StaleTail // its last life is lost
	at := t.header.Position()
	switch {
	case !t.found, s.newLife, t.damaged, fresh:
		fresh = true
	case d.flushLSN() < at.EndLSN:
		w.fail("region %s: the log ends before what was published", s.r.name)
	case from > at.EndLSN:
		for _, r := range w.regions {
			if a := s.acks[r.id]; r.id != s.r.id && (!a.epoch.SameLog(d.epoch) || a.end < from) {
				w.Stats.Gaps++
				w.note(s.r.id, "gap", uint64(at.EndLSN), uint64(from))
				again()
				return
			}
		}
		fresh = true
	}
	if fresh {
		d.incarnation = max(d.incarnation, t.header.Incarnation) + 1
		d.flush()
		at = wire.Position{Incarnation: d.incarnation, EndLSN: from}
		s.step("incarnation stored")
	}
	s.newLife = false
	w.note(s.r.id, "publish", uint64(at.Incarnation), at.Number)
	w.must(checkpoint.MustStart(from, d.confirmed))
	o := &outbound{
		s: s, at: at, slot: from, decoded: at.EndLSN, lastCut: time.Now(),
		expected: st.last, tracker: checkpoint.NewTracker(at.EndLSN),
	}
	s.durable = max(s.durable, at.EndLSN)
	o.log = newReader(d, func() bool { return w.rng.IntN(20) == 0 })
	kept := s.stamps
	if !w.cfg.Strict {
		kept = replicator.NewStamps()
	}
	o.stamps = stamping{s: s, stamper: replicator.NewStamper(s.policy, s.index, s.clock, kept)}
	o.enc = wire.NewEncoder(wire.EncoderConfig{
		Cluster: cluster, Origin: s.r.name, Epoch: d.epoch, Compress: w.cfg.Compress, MaxFrame: w.cfg.MaxFrame, MaxPacket: 1 << 20,
	}, at)
	for o.next < len(d.log) && d.log[o.next].end <= from {
		o.next++
	}
	s.out = o
	s.own.decoded = 0
	s.pushback(d.back)
	if at.Number == 0 {
		o.cut(wire.Heartbeat, at.EndLSN)
	}
	o.wake()
	o.beat()
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
	o.pumping = false
	d := o.s.r.db
	if len(o.queue) > 32 {
		return // back-pressure; an acknowledgement wakes it
	}
	if o.next >= d.flushed {
		if end := d.flushLSN(); end > o.decoded && !o.log.dec.InTransaction() {
			o.decoded = end // a keepalive
		}
		o.s.own.decoded = max(o.s.own.decoded, o.decoded)
		o.extras()
		return
	}
	o.receive(d.log[o.next])
	o.next++
	o.extras()
	if o.enc.Len() > 0 {
		switch {
		case o.inFlight == 0 && len(o.queue) == 0:
			o.flush()
		case !o.lingering:
			o.lingering = true
			o.after(linger, func() {
				o.lingering = false
				o.flush()
			})
		}
	}
	o.wake()
}

// receive feeds the messages of one transaction.
func (o *outbound) receive(tx *logTx) {
	o.log.read(tx, o.transaction)
	o.s.own.decoded = max(o.s.own.decoded, o.decoded, tx.end)
}

// transaction stamps and frames what the decoder gave out.
func (o *outbound) transaction(tx *wal.Transaction) {
	w := o.s.w
	if len(tx.Changes) == 0 && !o.inParts {
		o.decoded = max(o.decoded, tx.EndLSN)
		return
	}
	if tx.More {
		w.Stats.Parts++
	}
	o.stamp(tx)
	if tx.EndLSN != 0 && tx.EndLSN <= o.at.EndLSN || tx.EndLSN == 0 && tx.CommitLSN < o.at.EndLSN {
		o.merge(tx)
		return
	}
	if tx.More && tx.Part == 0 {
		o.flush()
	}
	o.inParts = tx.More
	tx.Messages = nil
	w.must(o.enc.Add(tx))
	o.merge(tx)
	if !tx.More {
		o.decoded = max(o.decoded, tx.EndLSN)
	}
	if o.enc.Size() >= w.cfg.FrameBytes || tx.More {
		o.flush()
	}
}

// merge notes what waits for the self-merge.
func (o *outbound) merge(tx *wal.Transaction) {
	for i := range tx.Changes {
		if c := &tx.Changes[i]; o.s.needsMerge(c) {
			o.s.own.note(o.s.keyOf(c), part{tx.CommitLSN, tx.Part})
		}
	}
}

func (o *outbound) flush() {
	if o.enc.Len() == 0 {
		return
	}
	end := o.decoded
	if o.inParts {
		end = 0
	}
	o.cut(wire.Data, end)
}

func (o *outbound) cut(kind wire.Kind, end wal.LSN) {
	w := o.s.w
	for f := range o.enc.CutSeq(kind, 0, end, w.now()) {
		w.Stats.Frames++
		if !f.Header.Flags.Has(wire.First | wire.Last) {
			w.Stats.Fragments++
		}
		o.queue = append(o.queue, f)
		o.s.sent[[2]uint64{uint64(f.Header.Incarnation), f.Header.Number}] = f.Header.Chain
	}
	o.lastCut = time.Now()
	o.send()
}

// beat publishes a position when nothing else does.
func (o *outbound) beat() {
	o.after(heartbeat/2, func() {
		o.wake()
		if time.Since(o.lastCut) >= heartbeat && !o.inParts && len(o.queue) == 0 {
			o.flush()
			if time.Since(o.lastCut) >= heartbeat {
				o.cut(wire.Heartbeat, o.decoded)
			}
		}
		o.beat()
	})
}
