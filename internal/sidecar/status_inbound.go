package sidecar

import (
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
)

// inboundStatus is the account of the direction from one origin's stream to the database.
func (s *Sidecar) inboundStatus(in *inboundState, working bool) status.Inbound {
	failure := s.trouble("inbound " + in.origin)
	in.mu.Lock()
	cp, a, sub := in.cp, in.applier, in.sub
	st := status.Inbound{
		Origin: in.origin, State: in.state, Reason: in.reason, Epoch: cp.Epoch.String(), Incarnation: cp.Incarnation,
		Frame: cp.FrameNo, EndLSN: cp.EndLSN.String(), StreamSeq: cp.StreamSeq, Gap: in.gap, LastError: failure,
		Quarantined: in.quarantined.Load(), Parked: s.parked.Count(in.origin), ClockSkewSecs: float64(in.skew.Load()) / 1e6,
		Transactions: cp.Transactions, Rows: in.rows.Load(), Duplicates: in.duplicates.Load(),
	}
	in.mu.Unlock()
	if a != nil {
		st.Rows += a.Stats.Rows.Load()
	}
	if t := in.lastAt.Load(); t != 0 {
		at := time.UnixMicro(t)
		st.LastConflictAt = &at
	}
	peer := s.heardOf(in.origin)
	copying := 0
	if sub != nil {
		r := sub.State()
		st.Duplicates += r.Duplicates
		in.lag(&st, cp, r, peer, time.Now())
		if a != nil {
			doubt(&st, r)
		}
	}
	if p := peer.Position; p != nil {
		copying = p.Copying
		stands(&st, p, s.reachable(in.origin))
	}
	if st.State == status.Replicating {
		switch text := behind(st.LagBytes, st.LagSeconds, st.BacklogFrames, copying); {
		case working && !s.reachable(in.origin):
			st.State, st.Reason = status.Partitioned, "origin "+in.origin+" is unreachable"
		case st.BacklogFrames > 0 && failing(failure, time.Now()):
			st.State, st.Reason = status.Down, failure.Message
		case st.Parked > 0:
			st.State, st.Reason = status.Parked, parkedText(st.Parked)
		case text != "":
			st.State, st.Reason = status.CatchingUp, text
		case len(in.lacks.list()) > 0 && !s.silent(in.origin):
			st.State, st.Reason = status.CatchingUp, "rows of tables that were left out here before are asked for"
		}
	}
	if st.State == "" {
		st.State, st.Reason = status.Down, "starting"
	}
	return st
}

// heardOf is what is known of a peer; nothing before there is a broker.
func (s *Sidecar) heardOf(region string) broker.Peer {
	if v := s.view.Load(); v != nil && v.broker != nil {
		return v.broker.Peer(region)
	}
	return broker.Peer{}
}

// doubt takes over what the subscription says of holes and of silence.
func doubt(st *status.Inbound, r subscribe.State) {
	if g := r.Gap; g != nil {
		st.State, st.Reason = status.CatchingUp, g.Error()
		if g.Refused != "" {
			st.State = status.Gap
		}
		st.Gap = &status.GapInfo{From: g.From.String(), To: g.To.String(), Since: g.Since, Remedy: g.Hint()}
	}
	if !r.Reachable && r.Err != nil && st.State == status.Replicating {
		st.State, st.Reason = status.Partitioned, r.Err.Error()
	}
	if refuses(r, st.LagBytes, time.Now()) && (st.State == status.Replicating || st.State == status.CatchingUp) {
		st.State, st.Reason = status.Down, "what comes from "+st.Origin+" is refused: "+r.LastRefused
	}
}

// refusedFor is after which time an origin of which nothing but refused messages has come counts as one that does not get on. Its
// heartbeats come more often, unless they are configured otherwise.
const refusedFor = 20 * time.Second

// refuses reports that nothing but messages that are refused has come for a while, and that something is missing, lag bytes of WAL: the origin signs
// otherwise than is said here, say, or runs a later program.
func refuses(r subscribe.State, lag int64, now time.Time) bool {
	return r.Gap == nil && lag > 0 && !r.RefusedSince.IsZero() && now.Sub(r.RefusedSince) > refusedFor
}

// stands takes over that the origin publishes nothing, or not everything, until somebody does
// something there. What is worse here stays.
func stands(st *status.Inbound, p *broker.Position, reachable bool) {
	state := status.State(p.Stands)
	if !reachable || worse(st.State, state) == st.State {
		return
	}
	switch state {
	case status.Gap:
		st.State, st.Reason = state, "origin "+st.Origin+" has a gap and does not publish everything: its status has the remedy"
	case status.Down:
		st.State, st.Reason = state, "origin "+st.Origin+" publishes nothing: its status says why"
	}
}

// stuck is what the origin is told: its changes cannot be applied here, and that does not pass by
// itself. What the origin itself is the reason of is not told to it.
func (s *Sidecar) stuck(origin string) string {
	in := s.in[origin]
	if in == nil {
		return ""
	}
	failure := s.trouble("inbound " + origin)
	in.mu.Lock()
	state, sub, cp := in.state, in.sub, in.cp
	in.mu.Unlock()
	switch {
	case state == status.Down && failure != nil && time.Since(failure.Since) > failingFor:
		return string(status.Down)
	case state == status.Gap:
		return string(status.Gap)
	case sub != nil:
		r, st := sub.State(), status.Inbound{}
		in.lag(&st, cp, r, s.heardOf(origin), time.Now())
		return string(stops(r, st.LagBytes, time.Now()))
	}
	return ""
}

// stops is why what is read does not get on by itself, lag bytes behind the origin: gap, down, or "".
func stops(r subscribe.State, lag int64, now time.Time) status.State {
	switch {
	case r.Gap != nil && r.Gap.Refused != "":
		return status.Gap
	case refuses(r, lag, now):
		return status.Down
	}
	return ""
}

// lag measures against what the origin has committed, as it says with every sign of life, and
// against what has come, while it says nothing.
func (in *inboundState) lag(st *status.Inbound, cp checkpoint.Checkpoint, r subscribe.State, peer broker.Peer, now time.Time) {
	has, end := cp.EndLSN, r.OriginLSN
	st.BacklogFrames = r.Backlog
	p := peer.Position
	if p != nil && p.Epoch.SameWAL(cp.Epoch) {
		end = max(end, p.WALEnd)
		if p.Incarnation != 0 && p.Incarnation == cp.Incarnation {
			if cp.FrameNo >= p.Frame {
				has = max(has, p.Through)
			}
			n := uint64(0)
			if p.Last > cp.FrameNo {
				n = p.Last - cp.FrameNo
			}
			if now.Sub(peer.SeenAt) > silent {
				n = max(n, r.Backlog)
			}
			st.BacklogFrames = n
		}
	}
	st.OriginLSN = end.String()
	d, whole := in.ends.age(has, now)
	seconds := d.Seconds()
	if end > has {
		st.LagBytes = int64(end - has)
		in.mu.Lock()
		sent := in.sent
		in.mu.Unlock()
		if sent == 0 {
			sent = cp.CommitTime
		}
		// Both are the origin's clock: how much older is what stands here than what was sent.
		if newest := r.SentAt; !whole && sent > 0 && newest > sent {
			seconds = max(seconds, float64(newest-sent)/1e6)
		}
		if p != nil {
			seconds = max(seconds, p.Behind)
		}
	}
	if p != nil && now.Sub(peer.SeenAt) > silent {
		seconds = max(seconds, now.Sub(peer.SeenAt).Seconds()) // nobody knows what it has committed since
	}
	st.LagSeconds = seconds
}

// silent is after which time without a word an origin's position counts as old.
const silent = 4 * time.Second

// hear notes how far the origins say they are.
func (s *Sidecar) hear() {
	for _, in := range s.in {
		if p := s.broker.Peer(in.origin); p.Position != nil && p.Position.WALEnd != 0 {
			in.ends.note(p.SeenAt, p.Position.WALEnd)
		}
	}
}
