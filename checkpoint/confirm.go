package checkpoint

import (
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Mode is a policy of confirming positions to the slot, and the word for what a decision
// rested on (applied or published).
type Mode string

const (
	Adaptive  Mode = "adaptive"
	Applied   Mode = "applied"
	Published Mode = "published"
)

// Peer is what one peer has acknowledged.
type Peer struct {
	Region string
	// Applied is the position in this region's WAL up to which the peer has applied
	// durably; 0 before the first acknowledgement, and for one of another WAL.
	Applied wal.LSN
	// AckAge and Reachable do not change the decision (a silent peer is waited for as long
	// as the budget lasts); they tell status why WAL is held.
	AckAge    time.Duration
	Reachable bool
}

// Inputs of one decision.
type Inputs struct {
	// Published is the position up to which frames are durable in the stream; only
	// positions that a published frame covers may ever be confirmed.
	Published wal.LSN
	// Confirmed is what the slot was told last, 0 if unknown.
	Confirmed wal.LSN
	Peers     []Peer
	Retained  uint64 // bytes of WAL that the slot holds back
}

// Confirm is the policy. Sizes are in bytes.
type Confirm struct {
	Mode       Mode
	HoldMax    uint64 // budget of retained WAL in adaptive mode; 0 holds nothing
	HoldMargin uint64 // what stays replayable from the slot past the budget
}

// LSN returns the position to confirm; what it rests on (Applied or Published); and how many
// bytes of confirmed WAL some peer has not applied, which exist in the stream only. Of a peer
// that was not heard of nothing is known: it adds nothing to them (see RiskKnown). The position is never above Published, and not below Confirmed unless Published is.
func (c Confirm) LSN(in Inputs) (lsn wal.LSN, rests Mode, bytesAtRisk uint64) {
	applied := in.applied()
	lsn, rests = applied, Applied
	switch {
	case c.Mode == Published:
		lsn, rests = in.Published, Published
	case c.Mode == Adaptive && in.Retained > c.HoldMax:
		if held := below(in.Published, c.HoldMargin); held > applied {
			lsn, rests = held, Published
		}
	}
	lsn = min(max(lsn, in.Confirmed), in.Published)
	for i := range in.Peers {
		if p := &in.Peers[i]; p.Applied > 0 && lsn > p.Applied {
			bytesAtRisk = max(bytesAtRisk, uint64(lsn-p.Applied))
		}
	}
	return lsn, rests, bytesAtRisk
}

// Passed reports whether every peer has applied, on disk, what lies below a confirmed position. It means that only
// where what each peer says counts (Ack.Judge).
func (in *Inputs) Passed(confirmed wal.LSN) bool { return confirmed <= in.applied() }

// RiskKnown reports whether the bytes at risk are all that is at risk: every peer was heard of.
func (in *Inputs) RiskKnown() bool {
	return !slices.ContainsFunc(in.Peers, func(p Peer) bool { return p.Applied == 0 })
}

// applied is the lowest position of all peers, at most Published: a peer cannot have applied
// what was never published, so a higher one is of another WAL. Without peers nobody is waited for.
func (in *Inputs) applied() wal.LSN {
	low := in.Published
	for i := range in.Peers {
		low = min(low, in.Peers[i].Applied)
	}
	return low
}

func below(l wal.LSN, n uint64) wal.LSN {
	if uint64(l) <= n {
		return 0
	}
	return l - wal.LSN(n)
}
