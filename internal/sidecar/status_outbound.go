package sidecar

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// outboundStatus is the account of the direction slot -> stream, and of what the peers have of it.
func (s *Sidecar) outboundStatus(working bool) status.Outbound {
	o, v, now := &s.out, s.view.Load(), time.Now()
	var epoch wal.Epoch
	if v != nil {
		epoch = v.epoch
	}
	copying := s.copying()
	merge := s.trouble("self-merge")
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.figures(now)
	out.Slot, out.Epoch, out.Parked, out.LastError = s.cfg.Postgres.Slot, epoch.String(), s.parked.Count(s.cfg.Region), s.trouble("outbound")
	out.ConfirmMode = o.confirmMode(string(s.cfg.Publish.Confirm))
	o.streamStatus(&out)
	if out.State == status.Replicating && failing(out.LastError, now) {
		out.State, out.Reason = status.Down, out.LastError.Message
	}
	flows := out.State == status.Replicating
	for _, p := range s.cfg.PeerNames() {
		peer, frames := o.peerStatus(p, epoch, now)
		stuck := ""
		if v != nil && v.broker != nil && working {
			b := v.broker.Peer(p)
			peer.Reachable, stuck = b.Reachable, b.Stuck
		}
		out.Peers = append(out.Peers, peer)
		if flows {
			peerState(&out, peer, behind(peer.LagBytes, peer.LagSeconds, frames, copying), stuck)
		}
	}
	if flows && out.State != status.Partitioned {
		localStatus(&out, merge)
	}
	if text := s.incomplete(); text != "" && working && flows {
		out.State, out.Reason = status.Gap, text
	}
	if out.State == "" {
		out.State, out.Reason = status.Down, "starting"
	}
	return out
}

// peerState takes over what one peer makes of a direction that flows here; the worst of them stays. stuck is
// what the peer says of itself. A gap of it waits for somebody, often here, so it is one at this end too.
func peerState(out *status.Outbound, peer status.Peer, text, stuck string) {
	state, reason := status.CatchingUp, "peer "+peer.Region+": "+text+stuckText(stuck)
	switch {
	case !peer.Reachable:
		state, reason = status.Partitioned, "peer "+peer.Region+" is unreachable"
	case stuck == string(status.Gap):
		state, reason = status.Gap, "peer "+peer.Region+" has a gap and applies nothing of this region, which cannot send again what is missing: run pgwaltz resync here"
	case text == "":
		return
	}
	if worse(out.State, state) != out.State {
		out.State, out.Reason = state, reason
	}
}

// stuckText says of a peer that is down that a backlog does not get smaller by itself.
func stuckText(state string) string {
	if status.State(state) == status.Down {
		return "; it applies nothing: its status says why"
	}
	return ""
}

// figures is the account without what the stream and the peers say. The caller holds mu.
func (o *outboundState) figures(now time.Time) status.Outbound {
	out := status.Outbound{
		State: o.state, Reason: o.reason, Incarnation: o.incarnation, Gap: o.gap,
		Frame: o.frame.Load(), PublishedLSN: wal.LSN(o.durable.Load()).String(), ConfirmedLSN: wal.LSN(o.confirmed.Load()).String(),
		BytesAtRisk: int64(o.atRisk.Load()), RiskKnown: o.riskKnown.Load(),
		Transactions: o.stats.Transactions.Load(), Rows: o.stats.Rows.Load(), Echoes: o.echoes, Foreign: o.foreign,
	}
	end, through := o.ends.end(), o.through()
	out.WALEnd = end.String()
	if end > through {
		out.BacklogBytes = int64(end - through)
	}
	out.BacklogSeconds = o.late(now)
	if o.slot != nil {
		out.ReceivedLSN = o.slot.Received().String()
		out.Echoes, out.Foreign = out.Echoes+o.slot.Echoes(), out.Foreign+o.slot.Foreign()
	}
	if o.row != nil {
		out.SlotActive, out.WALStatus, out.RetainedBytes = o.row.Active, o.row.WALStatus, o.row.RetainedBytes()
		out.SafeWALBytes = o.row.SafeWALSize
	}
	return out
}

// confirmMode is the configured mode, and the one that adaptive is in.
func (o *outboundState) confirmMode(configured string) string {
	if m, ok := o.mode.Load().(string); ok && m != configured && configured == "adaptive" {
		return configured + "/" + m
	}
	return configured
}

// streamStatus adds what the publisher says of the stream. The caller holds mu.
func (o *outboundState) streamStatus(out *status.Outbound) {
	if o.publisher == nil {
		return
	}
	p := o.publisher.State()
	out.StreamMessages, out.StreamBytes, out.StreamMaxBytes = p.Messages, p.Bytes, p.MaxBytes
	switch {
	case o.state == status.Gap || o.state == status.Down:
	case p.Full:
		out.State, out.Reason = status.CatchingUp, fmt.Sprintf("stream full, holding at LSN %s", wal.LSN(o.durable.Load()))
	case p.Holding && p.Err != nil:
		out.State, out.Reason = status.Partitioned, p.Err.Error()
	}
	if p.Err != nil && out.LastError == nil {
		out.LastError = &status.LastError{At: p.Since, Message: p.Err.Error()}
	}
}

// localStatus adds what is not well in this region itself. merge is why the self-merge fails, or nil.
func localStatus(out *status.Outbound, merge *status.LastError) {
	switch text := behind(out.BacklogBytes, out.BacklogSeconds, 0, 0); {
	case merge != nil && time.Since(merge.Since) > failingFor:
		out.State, out.Reason = status.Down, "the self-merge fails: "+merge.Message
	case out.Parked > 0 && out.State != status.Gap:
		out.State, out.Reason = status.Parked, parkedText(out.Parked)
	case text != "" && out.State == status.Replicating:
		out.State, out.Reason = status.CatchingUp, "publishing: "+text
	}
}

// failingFor is how long a side pipe has to fail before its direction counts as down.
const failingFor = 5 * time.Second

func parkedText(n int64) string {
	if n == 1 {
		return "1 change is set aside: pgwaltz parked list"
	}
	return fmt.Sprintf("%d changes are set aside: pgwaltz parked list", n)
}

// through is the position up to which all changes are durable in the stream. The caller holds mu.
func (o *outboundState) through() wal.LSN {
	through := wal.LSN(o.durable.Load())
	if o.pipe != nil {
		through = max(through, o.pipe.Passed())
	}
	return through
}

// late is how old the oldest WAL is that is not published, in seconds. The caller holds mu.
func (o *outboundState) late(now time.Time) float64 {
	d, whole := o.ends.age(o.through(), now)
	if at := o.stats.LastCommit.Load(); !whole && at != 0 {
		d = max(d, now.Sub(time.UnixMicro(at))) // the newest of what was published
	}
	return d.Seconds()
}

// peerStatus says how far one peer is, and how many frames it lacks. The caller holds mu.
func (o *outboundState) peerStatus(name string, epoch wal.Epoch, now time.Time) (status.Peer, uint64) {
	a := o.acks[name]
	peer := status.Peer{Region: name, AppliedLSN: wal.LSN(0).String(), AckedAt: a.received}
	if a.Deaf {
		return peer, 0 // it applies nothing
	}
	// Of a peer that was not heard of since the start, as much is known as was confirmed.
	has, frames := wal.LSN(o.confirmed.Load()), uint64(0)
	if !a.received.IsZero() && a.Epoch.SameWAL(epoch) {
		peer.AppliedLSN, has = a.EndLSN.String(), a.EndLSN
		if a.Incarnation == o.incarnation {
			if a.Frame >= o.content.Load() {
				has = max(has, o.through())
			}
			if last := o.frame.Load(); last > a.Frame {
				frames = last - a.Frame
			}
		}
	}
	if end := o.ends.end(); end > has {
		peer.LagBytes = int64(end - has)
	}
	d, whole := o.ends.age(has, now)
	peer.LagSeconds = d.Seconds()
	// Both are this clock: when the newest frame was sent, and the newest applied one.
	if sent := o.stats.Sent.Load(); !whole && a.CommitTime > 0 && sent > int64(a.CommitTime) {
		peer.LagSeconds = max(peer.LagSeconds, float64(sent-int64(a.CommitTime))/1e6)
	}
	return peer, frames
}

// position is what the peers are told of this region's WAL.
func (s *Sidecar) position() *broker.Position {
	v := s.view.Load()
	if v == nil || !s.cfg.Publishes() {
		return nil
	}
	copying, failure, narrowed := s.copying(), s.trouble("outbound"), s.incomplete() != ""
	o, now := &s.out, time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	p := broker.Position{Epoch: v.epoch, WALEnd: o.ends.end(), Stands: string(o.stands(failure, narrowed, now))}
	if p.Stands == "" && (p.WALEnd == 0 || o.incarnation == 0) {
		return nil
	}
	p.Incarnation, p.Frame, p.Last, p.Through = o.incarnation, o.content.Load(), o.frame.Load(), o.through()
	p.Behind, p.Copying = o.late(now), copying
	return &p
}

// stands is the state that peers have to know of: they get nothing, or not everything, and it does
// not pass by itself. The caller holds mu.
func (o *outboundState) stands(failure *status.LastError, incomplete bool, now time.Time) status.State {
	switch {
	case o.state == status.Down && failure != nil && now.Sub(failure.Since) > failingFor:
		return status.Down
	case o.state == status.Gap || incomplete:
		return status.Gap
	}
	return ""
}

// incomplete says which tables are selected and not, or not in full, in the publication, or which peer lacks
// rows that only a command brings; "" for none.
func (s *Sidecar) incomplete() string {
	if text := s.members.Incomplete(); text != "" {
		return text
	}
	return s.lives.lack()
}

// copying is the number of tables whose copy the peers have not applied in full, as far as is known.
func (s *Sidecar) copying() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(s.due.Load())
	for i := range s.copy {
		if unfinished(s.copy[i]) {
			n++
		}
	}
	if asked := time.Unix(0, s.copyAsked.Load()); n == 0 && time.Since(asked) < copiesSeen {
		n = 1
	}
	return n
}
