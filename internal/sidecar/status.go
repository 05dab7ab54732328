package sidecar

import (
	"fmt"
	"os"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Status is the sidecar's account of itself. It answers from memory, at once.
func (s *Sidecar) Status() status.Status {
	s.mu.Lock()
	st := status.Status{
		Cluster: s.cfg.Cluster, Region: s.cfg.Region, Version: s.version, PID: os.Getpid(), StartedAt: s.started,
		State: s.role, LastError: s.lastErr, Copy: append([]status.Copy(nil), s.copy...),
		Conflicts: status.Conflicts{Total: s.conf.Total, LastAt: s.conf.LastAt, Last: s.conf.Last, ByType: map[string]uint64{}},
	}
	for k, v := range s.conf.ByType {
		st.Conflicts.ByType[k] = v
	}
	s.mu.Unlock()
	st.Inbound = []status.Inbound{}
	working := st.State == status.Replicating
	if s.cfg.Publishes() {
		o := s.outboundStatus(working)
		st.Outbound = &o
		if working {
			st.State = worse(st.State, o.State)
		}
	}
	if s.cfg.Applies() {
		for _, p := range s.cfg.PeerNames() {
			in := s.inboundStatus(s.in[p], working)
			st.Inbound = append(st.Inbound, in)
			if working {
				st.State = worse(st.State, in.State)
			}
		}
	}
	return st
}

// worse returns the worse of two states.
func worse(a, b status.State) status.State {
	rank := map[status.State]int{status.Replicating: 0, status.CatchingUp: 1, status.Parked: 2, status.Partitioned: 3, status.Gap: 4, status.Down: 5}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// catchingUp is the lag from which a direction counts as catching up.
const (
	catchingUpBytes   = 4 << 20
	catchingUpSeconds = 5
)

func (s *Sidecar) outboundStatus(working bool) status.Outbound {
	o, v := &s.out, s.view.Load()
	var epoch wal.Epoch
	if v != nil {
		epoch = v.epoch
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	out := status.Outbound{
		State: o.state, Reason: o.reason, Slot: s.cfg.Postgres.Slot, Epoch: epoch.String(), Incarnation: o.incarnation,
		Frame: o.frame.Load(), PublishedLSN: wal.LSN(o.durable.Load()).String(), ConfirmedLSN: wal.LSN(o.confirmed.Load()).String(),
		BytesAtRisk: int64(o.atRisk.Load()), Transactions: o.stats.Transactions.Load(), Rows: o.stats.Rows.Load(),
		Gap: o.gap, LastError: o.lastErr,
	}
	out.ConfirmMode = string(s.cfg.Publish.Confirm)
	if m, ok := o.mode.Load().(string); ok && m != out.ConfirmMode && out.ConfirmMode == "adaptive" {
		out.ConfirmMode += "/" + m
	}
	end := wal.LSN(0)
	if o.slot != nil {
		end = o.slot.WALEnd()
		out.ReceivedLSN, out.WALEnd = o.slot.Received().String(), end.String()
		out.Echoes, out.Foreign = o.slot.Echoes(), o.slot.Foreign()
		if end > wal.LSN(o.durable.Load()) {
			out.BacklogBytes = int64(end - wal.LSN(o.durable.Load()))
		}
	}
	if o.row != nil {
		out.SlotActive, out.WALStatus, out.RetainedBytes = o.row.Active, o.row.WALStatus, o.row.RetainedBytes()
		out.SafeWALBytes = o.row.SafeWALSize
	}
	if o.publisher != nil {
		p := o.publisher.State()
		out.StreamMessages, out.StreamBytes, out.StreamMaxBytes = p.Messages, p.Bytes, p.MaxBytes
		switch {
		case p.Full:
			out.State, out.Reason = status.CatchingUp, fmt.Sprintf("stream full, holding at LSN %s", wal.LSN(o.durable.Load()))
		case p.Holding && p.Err != nil:
			out.State, out.Reason = status.Partitioned, p.Err.Error()
		}
		if p.Err != nil && out.LastError == nil {
			out.LastError = &status.LastError{At: p.Since, Message: p.Err.Error()}
		}
	}
	if t := o.stats.Sent.Load(); out.BacklogBytes > 0 && t != 0 {
		out.BacklogSeconds = time.Since(time.UnixMicro(t)).Seconds()
	}
	for _, p := range s.cfg.PeerNames() {
		a := o.acks[p]
		peer := status.Peer{Region: p, AppliedLSN: wal.LSN(0).String()}
		if v != nil && v.broker != nil && working {
			peer.Reachable = v.broker.PeerReachable(p)
		}
		if !a.received.IsZero() {
			peer.AckedAt = a.received
			if a.Epoch.SameLog(epoch) {
				peer.AppliedLSN = a.EndLSN.String()
				if d := wal.LSN(o.durable.Load()); d > a.EndLSN {
					peer.LagBytes = int64(d - a.EndLSN)
					// Both are this clock: when the newest frame was sent, and the newest applied one.
					if t := o.stats.Sent.Load(); a.CommitTime > 0 && t > int64(a.CommitTime) {
						peer.LagSeconds = float64(t-int64(a.CommitTime)) / 1e6
					}
				}
			}
		}
		out.Peers = append(out.Peers, peer)
		if out.State == status.Replicating {
			switch {
			case !peer.Reachable:
				out.State, out.Reason = status.Partitioned, "peer "+p+" is unreachable"
			case peer.LagBytes > catchingUpBytes:
				out.State = status.CatchingUp
			}
		}
	}
	if out.State == status.Replicating && out.BacklogBytes > catchingUpBytes {
		out.State = status.CatchingUp
	}
	if n, ok := s.members.missing(); ok && working && (out.State == status.Replicating || out.State == status.CatchingUp) {
		out.State, out.Reason = status.Gap, "table "+n.String()+" is selected and not published any more: run pgwaltz setup, or leave it out with tables.exclude"
	}
	if out.State == "" || !working {
		out.State = status.Down
	}
	return out
}

func (s *Sidecar) inboundStatus(in *inboundState, working bool) status.Inbound {
	in.mu.Lock()
	cp, a, sub := in.cp, in.applier, in.sub
	st := status.Inbound{
		Origin: in.origin, State: in.state, Reason: in.reason, Epoch: cp.Epoch.String(), Incarnation: cp.Incarnation,
		Frame: cp.FrameNo, EndLSN: cp.EndLSN.String(), StreamSeq: cp.StreamSeq, Gap: in.gap, LastError: in.lastErr,
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
	if sub != nil && a != nil {
		s.subscriptionStatus(in, sub, cp, &st)
	}
	if st.State == status.Replicating {
		switch {
		case !s.reachable(in.origin):
			st.State, st.Reason = status.Partitioned, "origin "+in.origin+" is unreachable"
		case st.Parked > 0:
			st.State = status.Parked
		case st.LagBytes > catchingUpBytes || st.LagSeconds > catchingUpSeconds:
			st.State = status.CatchingUp
		}
	}
	if st.State == "" || !working {
		st.State = status.Down
	}
	return st
}

func (s *Sidecar) reachable(region string) bool {
	v := s.view.Load()
	return v == nil || v.broker == nil || v.broker.PeerReachable(region)
}

// stuckAfter is how long the loop that takes and holds the lead may not turn. Its longest step,
// the look at the database before the first term, waits for locks.
const stuckAfter = 5 * time.Minute

// turn notes that the loop that takes and holds the lead has turned.
func (s *Sidecar) turn() { s.turned.Store(time.Now().UnixNano()) }

// alive says that the loop that takes and holds the lead is stuck; nil while it turns.
func (s *Sidecar) alive() error {
	last := s.turned.Load()
	if last == 0 {
		return nil // it has not begun
	}
	if d := time.Since(time.Unix(0, last)); d > stuckAfter {
		return fmt.Errorf("the loop that holds the lead has not turned for %s", d.Round(time.Second))
	}
	return nil
}
