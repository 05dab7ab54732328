package sidecar

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/wal"
)

// peerAck is the newest word of one peer.
type peerAck struct {
	broker.Ack
	received time.Time
	said     checkpoint.AckVerdict // what was logged of it last
	recalled broker.Ack            // the newest of this run whose frame was looked up in the stream (recall); zero for none
}

func (a *peerAck) word() checkpoint.Ack {
	w := checkpoint.Ack{Peer: a.Peer, Epoch: a.Epoch, Incarnation: a.Incarnation, Frame: a.Frame, EndLSN: a.EndLSN, Proved: a.Proved}
	if chain, err := hex.DecodeString(a.Chain); err == nil {
		copy(w.Chain[:], chain)
	}
	return w
}

// words are the newest acknowledgements of all peers that were heard. The caller holds mu.
func (o *outboundState) words() []checkpoint.Ack {
	out := make([]checkpoint.Ack, 0, len(o.acks))
	for _, a := range o.acks {
		if !a.Deaf {
			out = append(out, a.word())
		}
	}
	return out
}

// present is what an acknowledgement is held against while the pipe runs. The caller holds mu.
func (o *outboundState) present(epoch wal.Epoch, walEnd wal.LSN) checkpoint.Present {
	now := checkpoint.Present{Epoch: epoch, Incarnation: o.incarnation, Reopened: o.reopened, Frame: o.frame.Load(), WALEnd: walEnd, Chains: &o.chains}
	if o.live && o.publisher != nil {
		now.Sent = o.publisher.Taken()
	}
	return now
}

// begun is where the slot was when the run began.
func (o *outboundState) begun() wal.LSN {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.start
}

// ackSilence is for how long a peer that repeats its word every second says nothing before another
// run of it may take something back.
const ackSilence = 3 * time.Second

// acked takes a peer's word of how far it has durably applied.
func (s *Sidecar) acked(a broker.Ack) {
	s.broker.Heard(a.Peer)
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.acks[a.Peer]
	if old.Peer != "" && !a.After(&old.Ack, time.Since(old.received) > ackSilence) {
		return // an older one, come late or again
	}
	o.acks[a.Peer] = peerAck{a, time.Now(), old.said, old.recalled}
}

// readers are the peers that apply what this region publishes: all but those that have said that they
// only publish. The caller holds mu.
func (s *Sidecar) readers() []string {
	return slices.DeleteFunc(s.cfg.PeerNames(), func(p string) bool { return s.out.acks[p].Deaf })
}

// saysDeaf tells the peers of a region that only publishes that they need not wait for it.
func (s *Sidecar) saysDeaf(ctx context.Context) error {
	for {
		for _, p := range s.cfg.PeerNames() {
			if err := s.broker.PublishAck(p, broker.Ack{Deaf: true, At: wal.MicrosOf(time.Now())}); err != nil {
				s.log.Debug("acknowledge", "origin", p, "reason", err.Error())
			}
		}
		if err := pause.For(ctx, time.Second); err != nil {
			return err
		}
	}
}

// counting returns, for each peer that applies, its newest word and whether it counts. The end of the WAL
// is not asked here: what lies beyond it cannot count anyway (checkpoint.Confirm), and
// judgeAcks looks for it every second. Where the newest is of a frame so far back that nobody can tell
// whether it is still the one, an older word counts in its place, whose frame was recalled. The caller holds mu.
func (s *Sidecar) counting(f func(peer string, a peerAck, counts bool)) {
	o := &s.out
	now := o.present(s.epoch, ^wal.LSN(0))
	for _, p := range s.readers() {
		a := o.acks[p]
		verdict := a.word().Judge(now)
		if r := &a.recalled; verdict == checkpoint.Distant && r.Incarnation == a.Incarnation && r.Frame <= a.Frame && r.Proved <= a.Proved {
			a.Frame, a.Chain, a.EndLSN, a.Proved, verdict = r.Frame, r.Chain, r.EndLSN, r.Proved, checkpoint.Counts
		}
		f(p, a, verdict == checkpoint.Counts)
	}
}

// judgeAcks looks for acknowledgements of what was never published. walEnd was read after
// they came. The pipe is opened anew then, and finds out what to do.
func (s *Sidecar) judgeAcks(acks []checkpoint.Ack, walEnd wal.LSN) {
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pipe == nil || !o.live { // the run that begins looks at them by itself
		return
	}
	now := o.present(s.epoch, walEnd)
	for _, a := range acks {
		v := a.Judge(now)
		held := o.acks[a.Peer]
		if v == held.said {
			if (v == checkpoint.OtherHistory || v == checkpoint.Ahead && time.Since(o.lastRewind) > rewindPause) && o.mayRewind(a.Peer) {
				s.renew(v == checkpoint.Ahead)
			}
			continue
		}
		held.said = v
		o.acks[a.Peer] = held
		switch v {
		case checkpoint.OtherHistory:
			s.log.Error("an acknowledgement is refused", "peer", a.Peer, "reason", a.Because(now))
			s.renew(false)
		case checkpoint.Ahead:
			s.log.Warn("an acknowledgement is refused: the stream has lost frames that a peer has applied; publishing again from the slot", "peer", a.Peer,
				"incarnation", a.Incarnation, "frame", a.Frame, "last_frame", now.Frame)
			if o.mayRewind(a.Peer) {
				s.renew(true) // else at the next look: a peer cannot ask for more by changing its word
			}
		case checkpoint.Senseless:
			s.log.Error("an acknowledgement is refused: it names an incarnation that no region of this history can be at", "peer", a.Peer,
				"incarnation", a.Incarnation, "present", now.Incarnation)
		case checkpoint.Distant:
			s.log.Info("a peer is far behind; what it acknowledges counts as far as its frames are found in the stream", "peer", a.Peer, "incarnation", a.Incarnation, "frame", a.Frame)
		case checkpoint.Outdated:
			s.log.Info("a peer has not read the present incarnation yet", "peer", a.Peer, "incarnation", a.Incarnation, "present", now.Incarnation)
		}
	}
}

// noteHistory stores that a peer has applied what this server never wrote, before the run at hand
// ends: by the next look the WAL may have grown beyond it. walEnd was read after acks came.
func (s *Sidecar) noteHistory(ctx context.Context, c *pgx.Conn, row streamstore.Row, acks []checkpoint.Ack, walEnd wal.LSN) error {
	s.out.mu.Lock()
	runs := s.out.pipe != nil
	s.out.mu.Unlock()
	if !runs || row.History {
		return nil
	}
	now := checkpoint.Present{Epoch: s.epoch, Incarnation: row.Incarnation, Reopened: row.Reopened, Frame: ^uint64(0), WALEnd: walEnd}
	for _, a := range acks {
		if a.Judge(now) == checkpoint.OtherHistory {
			return s.recordGap(ctx, c, a.EndLSN, walEnd, true, a.Because(now))
		}
	}
	return nil
}

// renew ends the run at hand; with incarnation, the next one begins a new incarnation. The
// caller holds mu.
func (s *Sidecar) renew(incarnation bool) {
	o := &s.out
	if incarnation {
		o.anew, o.lastRewind = true, time.Now()
	}
	if o.reopen != nil {
		o.reopen(errAgain)
	}
}

// rewindPause is how long one new incarnation has to mend what peers miss before another one
// is begun for the same reason.
const rewindPause = 3 * time.Second

// confirm is asked by the slot reader for the position that the server may forget.
func (s *Sidecar) confirm() wal.LSN {
	o := &s.out
	o.mu.Lock()
	confirmed := wal.LSN(o.confirmed.Load())
	peers, all := make([]checkpoint.Peer, 0, len(s.cfg.Peers)), true
	s.counting(func(name string, a peerAck, counts bool) {
		all = all && counts
		peer := checkpoint.Peer{Region: name, AckAge: time.Since(a.received), Reachable: s.broker.PeerReachable(name)}
		switch {
		case counts:
			peer.Applied = a.Proved
		case a.Epoch.SameWAL(s.epoch) && a.Incarnation >= o.reopened:
			// Of an incarnation before: it releases nothing, and puts nothing at risk either.
			peer.Applied = min(a.Proved, confirmed)
		}
		peers = append(peers, peer)
	})
	retained := uint64(0)
	if o.row != nil {
		retained = uint64(max(o.row.RetainedBytes(), 0))
	}
	loose := o.loose > 0
	start, proven := o.start, o.pipe != nil && o.pipe.Proven()
	o.mu.Unlock()
	if !proven || !s.mayConfirm() {
		return confirmed // the WAL has not shown yet that it is the one that was published
	}
	c := checkpoint.Confirm{
		Mode: checkpoint.Mode(s.cfg.Publish.Confirm), HoldMax: uint64(s.cfg.Publish.WALHoldMax), HoldMargin: uint64(s.cfg.Publish.HoldMargin),
	}
	if loose {
		c.Mode = checkpoint.Applied // the stream does not hold for the peers what the slot would give up
	}
	o.deciding.Lock()
	defer o.deciding.Unlock()
	inputs := checkpoint.Inputs{Published: wal.LSN(o.synced.Load()), Confirmed: confirmed, Peers: peers, Retained: retained}
	lsn, mode, risk := c.LSN(inputs)
	lazy := s.broker.Lazy()
	o.needs.Store(needOf(inputs, mode, risk, lazy))
	if lazy { // until it is not (keepReliance), nothing may stand in the stream alone
		c.Mode = checkpoint.Applied
		lsn, mode, risk = c.LSN(inputs)
	}
	// Own deletes have to be recorded before the WAL that holds them may go.
	if m := s.own.Safe(); lsn > m {
		lsn = m
	}
	// And what the times of the changes behind it depend on has to be stored.
	lsn = s.clock.To(lsn)
	o.confirmed.Store(max(o.confirmed.Load(), uint64(lsn)))
	o.atRisk.Store(risk)
	o.riskKnown.Store(inputs.RiskKnown())
	o.mode.Store(string(mode))
	lsn = wal.LSN(o.confirmed.Load())
	inputs.Published = max(wal.LSN(o.synced.Load()), start)
	if err := checkpoint.MustConfirm(c.Mode, lsn, inputs); err != nil {
		s.broke(err)
		return 0 // nothing moves any more
	}
	if all && inputs.Passed(lsn) { // nothing in front of it will do: the clock may not be stored for that
		o.passed.Store(uint64(lsn))
	}
	return lsn
}

// broke ends the process: the bookkeeping contradicts itself. May be called from anywhere.
func (s *Sidecar) broke(err error) {
	s.log.Error("stopping for good", "error", err.Error())
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.reopen != nil {
		s.out.reopen(err)
	}
}

// passedByAll is the position of this region's WAL that every peer has applied; 0 when one of
// them has not been heard of in the present incarnation.
func (s *Sidecar) passedByAll() wal.LSN {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	low, all := ^wal.LSN(0), len(s.cfg.Peers) > 0
	s.counting(func(_ string, a peerAck, counts bool) {
		all = all && counts
		low = min(low, a.Proved)
	})
	if !all {
		return 0
	}
	return low
}

// ackedFrame is the present incarnation and its frame up to which every peer has durably
// applied; frame 0 when one of them has none.
func (s *Sidecar) ackedFrame() (incarnation uint32, frame uint64) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	low, all := s.out.frame.Load(), len(s.cfg.Peers) > 0
	s.counting(func(_ string, a peerAck, counts bool) {
		all = all && counts
		low = min(low, a.Frame)
	})
	if !all {
		return s.out.incarnation, 0
	}
	return s.out.incarnation, low
}
