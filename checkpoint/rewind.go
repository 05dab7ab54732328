package checkpoint

import "fmt"

// Rewind is a peer's request to publish again from the slot, and what decides on it.
type Rewind struct {
	Ack     Ack  // where the peer stands
	History bool // it was shown another history than it has applied
	Reason  string
	Region  string // this one, for the remedy
	Slot    Slot
	Present Present
	// Resynced: an operator asked for a resync a short while ago.
	Resynced bool
}

// RewindDecision is the answer: Renew grants it, Reopen grants it with the gap admitted, Stop
// refuses it. History says that this server was restored from an older state.
type RewindDecision struct {
	Step    Step
	History bool
	// Newcomer: the peer has applied nothing yet. What the slot gives is not enough for it: the tables
	// have to be copied behind the new incarnation (wire.Newcomers).
	Newcomer bool
	Why      string
}

// Decide answers; the table is in doc.go.
func (r Rewind) Decide() RewindDecision {
	stop := func(history bool, format string, args ...any) RewindDecision {
		d := RewindDecision{Step: Stop, History: history, Why: fmt.Sprintf(format, args...)}
		if r.Resynced && r.Slot.Found && !r.Slot.Lost {
			d.Step = Reopen
		}
		return d
	}
	remedy := "; at region " + r.Region + " " + RemedyResync
	a, known := r.Ack, r.Ack.Epoch.SystemID != 0
	switch {
	case !r.Slot.Found || r.Slot.Lost:
		return stop(false, "the slot is gone; at region %s %s", r.Region, RemedySlot)
	case known && !a.Epoch.SameWAL(r.Present.Epoch):
		return stop(false, "the server's WAL is another one now (%s, peer %s has applied %s)%s", r.Present.Epoch, a.Peer, a.Epoch, remedy)
	case known && a.Judge(r.Present) == Senseless:
		return RewindDecision{Step: Stop, Why: fmt.Sprintf("peer %s says that it has applied incarnation %d; the newest one is %d", a.Peer, a.Incarnation, r.Present.Incarnation)}
	case r.History:
		return stop(true, "peer %s: %s%s", a.Peer, r.Reason, remedy)
	case known && a.Judge(r.Present) == OtherHistory:
		return stop(true, "%s%s", a.Because(r.Present), remedy)
	case known && a.EndLSN < r.Slot.Confirmed:
		return stop(false, "WAL before %s is gone, and peer %s needs it from %s on%s", r.Slot.Confirmed, a.Peer, a.EndLSN, remedy)
	}
	return RewindDecision{Step: Renew, Newcomer: !known}
}
