package sim

import (
	"math"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/replicator"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// sidecar is the process beside a database. Everything in it is gone when it is killed.
type sidecar struct {
	w    *World
	r    *region
	up   bool
	life int // counts processes and sessions; timers of an earlier one do nothing

	local  *replicator.LocalWAL
	merged wal.LSN // end of the last commit of the self-merge
	out    *outbound
	in     []*inbound // by origin; the own one is the self-merge
	again  []*retrier // by origin

	durable    wal.LSN // end of what is published
	synced     wal.LSN // end of what of it is on disk
	frame      uint64  // the last durable one
	chains     *checkpoint.Chains
	acks       []ack // of the peers, by region
	prove      bool  // the WAL is proved before it is read again
	newLife    bool  // the next opening starts a new incarnation
	lastRewind time.Time
	told       wal.LSN // confirmed to the slot by this process
}

// ack is what a peer said last.
type ack struct {
	epoch   wal.Epoch
	applied wal.LSN
	end     wal.LSN // proved
	seq     uint64
	inc     uint32
	number  uint64
	chain   [32]byte
	at      time.Time
	found   bool // the frame was looked up in the stream
}

type killed struct{ s *sidecar }

func newSidecar(w *World, r *region) *sidecar { return &sidecar{w: w, r: r} }

// after runs f unless the process has ended by then.
func (s *sidecar) after(d time.Duration, f func()) {
	n := s.life
	s.w.after(d, func() {
		if s.up && s.life == n {
			f()
		}
	})
}

// step is a point at which the process may be killed.
func (s *sidecar) step(name string) {
	if s.w.chance(2) {
		s.w.note(s.r.id, "killed", uint64(len(name)), 0)
		s.w.say(s.r.id, "killed at %s", name)
		panic(killed{s})
	}
}

// boot starts the process.
func (s *sidecar) boot() {
	if s.up {
		return
	}
	s.up = true
	s.acks, s.chains = make([]ack, len(s.w.regions)), &checkpoint.Chains{}
	s.told, s.newLife, s.lastRewind = 0, false, time.Time{}
	s.open()
}

// open starts a session: what the process reads from its database, and all pipes.
func (s *sidecar) open() {
	s.life++
	s.w.note(s.r.id, "open", uint64(s.life), 0)
	s.local = s.newLocal(tombstone.Limits{Keys: s.w.cfg.IndexKeys, Own: s.w.cfg.IndexOwn, Segment: s.w.cfg.IndexSegment, Held: s.w.cfg.IndexHeld})
	s.local.Start(s.r.db.insert)
	s.in, s.again = nil, make([]*retrier, len(s.w.regions))
	for _, r := range s.w.regions {
		in := newInbound(s, r.id)
		s.in = append(s.in, in)
		in.start()
		if s.w.cfg.Refuse || r == s.r && (s.w.cfg.IndexOwn > 0 || s.w.cfg.Far || s.w.asks()) {
			s.again[r.id] = newRetrier(in)
		}
	}
	s.reopen()
	s.status()
	if s.w.asks() {
		s.askAgain()
	}
}

// crash is kill -9.
func (s *sidecar) crash() {
	if !s.up {
		return
	}
	s.w.Stats.Crashes++
	s.end()
	s.w.after(s.w.span(1000, 300_000), s.boot)
}

// end closes all sessions.
func (s *sidecar) end() {
	s.up = false
	s.life++
	s.out = nil
	for _, in := range s.in {
		in.end()
	}
	for _, t := range s.again {
		if t != nil {
			t.end()
		}
	}
}

// disconnected is the loss of the database's sessions; the process goes on and comes back.
func (s *sidecar) disconnected() {
	if !s.up {
		return
	}
	s.end()
	s.w.after(s.w.span(1000, 100_000), func() {
		if !s.up {
			s.up = true
			s.open()
		}
	})
}

// reopen starts the outbound pipe anew from where slot and stream are now.
func (s *sidecar) reopen() {
	s.out = nil
	n := s.life
	s.after(s.w.span(500, 5000), func() {
		if s.out == nil && s.life == n {
			s.publish()
		}
	})
}

// status is the timer on which positions are confirmed and acknowledgements repeated.
func (s *sidecar) status() {
	s.confirm()
	for _, in := range s.in {
		in.sendAck()
		in.missed()
	}
	s.after(s.w.span(400_000, 600_000), s.status)
}

// flushed is told that the WAL of the database is on disk.
func (s *sidecar) flushed() {
	if !s.up {
		return
	}
	if s.out != nil {
		s.out.wake()
	}
	for _, in := range s.in {
		in.durable()
	}
}

// stored is told of a new message in an origin's stream.
func (s *sidecar) stored(origin int) {
	if s.up && origin < len(s.in) {
		s.in[origin].wake()
	}
}

// moved is told that a stream is not what it was.
func (s *sidecar) moved(origin int) {
	if !s.up {
		return
	}
	if origin < len(s.in) {
		s.after(s.w.span(1000, 50_000), s.in[origin].seek)
	}
	if origin == s.r.id {
		s.reopen()
	}
}

// confirm tells the slot what the server may forget.
func (s *sidecar) confirm() {
	w, d := s.w, s.r.db
	s.clockAhead()
	if s.out == nil || !s.out.framer.Proven() {
		return // no connection that could tell, or it may not be the WAL that was published
	}
	in, all := checkpoint.Inputs{Published: max(s.synced, s.told), Confirmed: s.told}, true
	for _, r := range w.regions {
		if r.id == s.r.id {
			continue
		}
		p := checkpoint.Peer{Region: r.name}
		all = all && s.counts(r.id)
		if a := s.acks[r.id]; s.counts(r.id) || a.epoch.SameWAL(d.epoch) && w.cfg.Break == ConfirmEarly {
			p.Applied = a.end
		}
		in.Peers = append(in.Peers, p)
	}
	lsn, _, _ := checkpoint.Confirm{Mode: w.cfg.Mode, HoldMax: 1 << 30, HoldMargin: 1 << 20}.LSN(in)
	if w.cfg.Break == ConfirmEarly {
		lsn = s.durable
	}
	if w.cfg.Break == MergedInMemory {
		lsn = min(lsn, s.merged)
	} else {
		lsn = min(lsn, d.onDisk[s.r.name].EndLSN)
	}
	at, high := s.local.ClockAt(lsn)
	if w.cfg.Break != ClockInMemory {
		lsn = min(lsn, at)
	}
	if w.cfg.Ahead && all && in.Passed(s.told) {
		d.stored.Passed = max(d.stored.Passed, s.told)
	}
	if lsn <= s.told {
		return
	}
	if w.cfg.Break != ConfirmEarly {
		w.must(checkpoint.MustConfirm(w.cfg.Mode, lsn, in))
	}
	s.told = lsn
	s.step("before confirm")
	if w.cfg.Break != ClockInMemory {
		d.clock[lsn] = high // on disk before the slot is told
	}
	if lsn <= d.confirmed {
		return
	}
	if w.cfg.Break != ConfirmEarly && !w.restored {
		for _, r := range w.regions {
			if cp := r.db.onDisk[s.r.name]; r.id != s.r.id && cp.EndLSN < lsn {
				w.fail("region %s confirms %s, but %s has applied %s on disk", s.r.name, lsn, r.name, cp.EndLSN)
			}
		}
	}
	d.confirmed = lsn
	w.note(s.r.id, "confirm", uint64(lsn), 0)
	s.probe("confirmed", lsn)
	n := w.rng.IntN(4)
	if w.cfg.Forgetful && w.rng.IntN(8) > 0 {
		n = 3
	}
	switch n {
	case 0: // a checkpoint of the server saves the slot, and flushes first
		d.flush()
		d.saved = d.confirmed
	case 1: // the walsender saves it, because restart_lsn moves; that flushes nothing
		d.saved = d.confirmed
	}
	s.purge()
}

// purge removes from the stream what every peer has applied.
func (s *sidecar) purge() {
	st := s.r.stream
	low := s.r.db.onDisk[s.r.name].StreamSeq
	for _, r := range s.w.regions {
		if r.id == s.r.id {
			continue
		}
		a := s.acks[r.id]
		if !s.counts(r.id) {
			return
		}
		low = min(low, a.seq)
	}
	if low > 4 {
		st.purge(low - 4)
	}
}

// acked takes a peer's word.
func (s *sidecar) acked(from int, a ack) {
	if !s.up {
		return
	}
	if old := s.acks[from]; old.epoch.SameWAL(a.epoch) && a.end < old.end && a.at.Before(old.at) {
		return
	}
	s.acks[from] = a
	word, p := s.word(from), s.present()
	switch v := word.Judge(p); {
	case s.out == nil || s.w.cfg.Break == SameHistory:
	case v == checkpoint.OtherHistory:
		if !s.w.restored {
			s.w.fail("%s", word.Because(p))
		}
		s.r.db.noteGap(true, word.Because(p))
		s.reopen()
		return
	case v == checkpoint.Ahead && (s.lastRewind.IsZero() || time.Since(s.lastRewind) > rewindPause):
		s.lastRewind, s.newLife = time.Now(), true
		s.w.Stats.Rewinds++
		s.w.note(s.r.id, "ahead", uint64(from), a.number)
		s.reopen()
		return
	case v == checkpoint.Distant && s.w.cfg.Ahead:
		s.recall(from)
	}
	s.copied()
	s.confirm()
}

// word is what a peer said last.
func (s *sidecar) word(from int) checkpoint.Ack {
	a := s.acks[from]
	return checkpoint.Ack{Peer: s.w.regions[from].name, Epoch: a.epoch, Incarnation: a.inc, Frame: a.number, Chain: a.chain, EndLSN: a.applied, Proved: a.end}
}

// present is what a peer's word is held against.
func (s *sidecar) present() checkpoint.Present {
	d := s.r.db
	p := checkpoint.Present{Epoch: d.epoch, Incarnation: d.incarnation, Reopened: d.stored.Reopened, Frame: s.frame, WALEnd: d.insert, Chains: s.chains}
	if s.w.cfg.Break == SameNumber {
		p.Frame, p.Chains = math.MaxUint64, nil
	}
	return p
}

// counts reports whether a peer's word may move anything.
func (s *sidecar) counts(from int) bool {
	if s.out == nil {
		return false
	}
	v := s.word(from).Judge(s.present())
	return v == checkpoint.Counts || v == checkpoint.Distant && s.acks[from].found
}

// recall looks for a frame that this process did not publish in the stream.
func (s *sidecar) recall(from int) {
	a := &s.acks[from]
	m := s.r.stream.at(a.seq)
	if m == nil {
		return
	}
	h, err := wire.ParseHeader(m.data)
	a.found = err == nil && h.Incarnation == a.inc && h.Number == a.number && h.Chain == a.chain
	if a.found {
		s.w.Stats.Recalled++
	}
}

// rewindPause is how long one new incarnation has to mend what peers miss.
const rewindPause = 3 * time.Second

// copied forgets a copy that every peer has. It is sent again in a new incarnation.
func (s *sidecar) copied() {
	d := s.r.db
	for _, r := range s.w.regions {
		if a := s.acks[r.id]; r.id != s.r.id && (d.copied.Number == 0 || !s.counts(r.id) || a.inc != d.copied.Incarnation || a.number < d.copied.Number) {
			return
		}
	}
	d.copies = false
}

// rewind answers a peer that misses frames, or that was shown another history.
func (s *sidecar) rewind(from int, cp checkpoint.Checkpoint, history error) {
	if !s.up {
		return
	}
	w, d := s.w, s.r.db
	now := s.present()
	now.Frame, now.Chains = math.MaxUint64, nil
	r := checkpoint.Rewind{
		Ack:  checkpoint.Ack{Peer: w.regions[from].name, Epoch: cp.Epoch, Incarnation: cp.Incarnation, Frame: cp.FrameNo, EndLSN: cp.EndLSN, Proved: cp.Seen},
		Slot: checkpoint.Slot{Found: true, Confirmed: d.confirmed}, Region: s.r.name, History: history != nil,
		Present:  now,
		Resynced: !d.resynced.IsZero() && time.Since(d.resynced) < 10*time.Minute,
	}
	if history != nil {
		r.Reason = history.Error()
	}
	dec := r.Decide()
	if w.cfg.Break == SameHistory {
		dec = checkpoint.RewindDecision{Step: checkpoint.Renew}
	}
	switch {
	case dec.Step == checkpoint.Stop && !w.restored:
		return // asked before it applied more; the WAL below is not needed any more
	case dec.Step == checkpoint.Stop:
		d.noteGap(dec.History, dec.Why)
		if dec.History {
			s.reopen()
		}
		return
	case dec.Step == checkpoint.Reopen:
		d.noteGap(dec.History, dec.Why)
		d.stored.Resync, d.copies = true, true
	case !s.lastRewind.IsZero() && time.Since(s.lastRewind) < rewindPause:
		return
	}
	if dec.Newcomer && !d.stored.Newcomer {
		d.stored.Newcomer, d.copies = true, true
	}
	s.lastRewind = time.Now()
	s.newLife = true
	w.Stats.Rewinds++
	w.note(s.r.id, "rewind", uint64(from), uint64(cp.EndLSN))
	s.reopen()
}
