package native

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

const (
	// Behind is the lag, in bytes of the peer's WAL, from which on a subscription is catching up.
	Behind = 4 << 20
	// quiet is how long a worker may hear nothing of the peer: a server sends a sign of life at half of wal_sender_timeout
	// (60 s unless set).
	quiet = 75 * time.Second
	// loopErrors of a worker within loopTime are a loop: it starts again and stops at the same change.
	loopErrors = 2
	loopTime   = time.Minute
)

// History remembers the errors that were counted, one peer's.
type History struct {
	at     []time.Time // of the newest errors, as they were seen
	errors int64
	known  bool
}

// Note takes what was seen, and returns how many errors came within the last loopTime.
func (h *History) Note(s Seen) int {
	if grew := s.Errors - h.errors; h.known && grew > 0 {
		for range min(grew, 100) {
			h.at = append(h.at, s.At)
		}
	}
	h.errors, h.known = s.Errors, s.Counted
	for len(h.at) > 0 && s.At.Sub(h.at[0]) > loopTime {
		h.at = h.at[1:]
	}
	return len(h.at)
}

// Judge says it in the words of status. failed is what History.Note returned; name is the subscription's. The tables are those
// that do not replicate as they should.
func Judge(peer, name string, s Seen, failed int) (status.Inbound, []status.Table) {
	in := status.Inbound{Origin: peer, EndLSN: s.Applied.String()}
	if s.Slot != nil {
		in.OriginLSN = s.Slot.CurrentLSN.String()
		if end := max(s.Applied, s.Slot.ConfirmedFlushLSN); end < s.Slot.CurrentLSN {
			in.LagBytes = int64(s.Slot.CurrentLSN - end)
		}
	}
	if s.Sub == nil {
		in.State, in.Reason = status.Down, fmt.Sprintf("there is no subscription %s: pgwaltz mode switch native", name)
		return in, nil
	}
	tables := judgeTables(peer, s)
	gone := Gone(peer, s.Sub.Slot, s.Slot, s.PeerErr, "pgwaltz resync --recreate-slot")
	switch {
	case gone != "":
		in.State, in.Reason = status.Gap, gone
	case !s.Sub.Enabled:
		in.State, in.Reason = status.Down, fmt.Sprintf("subscription %s is disabled: alter subscription %s enable", name, pg.Quote(name))
	case failed >= loopErrors:
		in.State, in.Reason = status.Down, fmt.Sprintf("the worker of subscription %s stops at a change and tries it again for ever (%d errors within a minute): the server's log names the row; mend the row here, or pgwaltz mode switch stream", name, failed)
	case s.PeerErr != nil && (!s.Worker || s.At.Sub(s.Heard) > quiet):
		in.State, in.Reason = status.Partitioned, fmt.Sprintf("peer %s is out of reach: %v", peer, s.PeerErr)
	case !s.Worker:
		in.State, in.Reason = status.Down, fmt.Sprintf("subscription %s has no worker: look at the server's log, and at max_logical_replication_workers", name)
	default:
		Moves(&in, len(tables), s.PeerErr)
	}
	return in, tables
}

// Gone says why the slot of a subscription cannot be read any more, and what to do; "" where it can, or the peer cannot be asked (peerErr).
// resync is the command for one that is lost.
func Gone(peer, name string, slot *pg.Slot, peerErr error, resync string) string {
	switch {
	case peerErr == nil && slot == nil:
		return fmt.Sprintf("slot %q of peer %s is gone: what was written since is not known; pgwaltz mode switch stream, then pgwaltz resync at the peer", name, peer)
	case slot != nil && slot.Lost():
		return fmt.Sprintf("slot %q of peer %s is lost: the server removed WAL that it needed; pgwaltz mode switch stream, then %s at the peer", slot.Name, peer, resync)
	}
	return ""
}

// Moves says how far a subscription is that works: tables are those that are not in step, peerErr is why the peer cannot be asked.
func Moves(in *status.Inbound, tables int, peerErr error) {
	switch {
	case tables > 0:
		in.State, in.Reason = status.CatchingUp, fmt.Sprintf("%d tables are not in step yet", tables)
	case in.LagBytes > Behind:
		in.State, in.Reason = status.CatchingUp, "behind"
	default:
		in.State = status.Replicating
		if peerErr != nil {
			in.Reason = fmt.Sprintf("the lag is not known: %v", peerErr)
		}
	}
}

// states are those of pg_subscription_rel, but for ready.
var states = map[byte]string{'i': "waits for its copy", 'd': "is being copied", 'f': "is copied, and not caught up", 's': "is copied, and about to be in step"}

func judgeTables(peer string, s Seen) (out []status.Table) {
	for _, t := range s.Published {
		state, there := s.Sub.Tables[t]
		switch {
		case !there:
			out = append(out, status.Table{Table: t.String(), Code: "not_subscribed", Error: true, Reason: "peer " + peer + " publishes it, and the subscription does not know it yet", Remedy: "pgwaltz mode switch native"})
		case state != 'r':
			out = append(out, status.Table{Table: t.String(), Code: "copying", Reason: "it " + states[state], Remedy: "wait"})
		}
	}
	return out
}

// JudgeSlot says how the peers read this region's slot. end is nil where there is no slot.
func JudgeSlot(name string, slot *pg.Slot) *status.Outbound {
	o := &status.Outbound{Slot: name, Peers: []status.Peer{}}
	if slot == nil {
		o.State, o.Reason = status.Down, "there is no such slot: pgwaltz setup"
		return o
	}
	o.SlotActive, o.WALStatus, o.ConfirmedLSN, o.WALEnd = slot.Active, slot.WALStatus, slot.ConfirmedFlushLSN.String(), slot.CurrentLSN.String()
	o.RetainedBytes, o.BacklogBytes = slot.RetainedBytes(), max(0, int64(slot.CurrentLSN)-int64(slot.ConfirmedFlushLSN))
	if slot.HasSafeWALSize {
		o.SafeWALBytes = slot.SafeWALSize
	}
	switch {
	case slot.Lost():
		o.State, o.Reason = status.Gap, "the slot is lost: the server removed WAL that it needed; pgwaltz mode switch stream, then pgwaltz resync --recreate-slot"
	case !slot.Active:
		o.State, o.Reason = status.Partitioned, "no subscription reads the slot; its WAL is kept"
	case o.BacklogBytes > Behind:
		o.State = status.CatchingUp
	default:
		o.State = status.Replicating
	}
	return o
}

// Weaker is what this mode does not promise, in words for the status. docs/fallback.md has the same list.
func Weaker() []string {
	return []string{
		"what comes is written over what is there, whichever is newer",
		"a unique clash stops the subscription until somebody mends the row",
		"deletes leave no tombstone",
		"the audit log has counts of the server only, and no rows",
	}
}
