package checkpoint

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Ack is a peer's word of how far it has durably applied this region's stream.
type Ack struct {
	Peer        string
	Epoch       wal.Epoch
	Incarnation uint32
	Frame       uint64
	Chain       [32]byte // of that frame
	// EndLSN: everything at or below is applied. Proved is what of it the peer has also seen
	// in its incarnation; it is lower while the origin repeats itself.
	EndLSN, Proved wal.LSN
}

// Present is what this region has published, as an acknowledgement is held against it.
type Present struct {
	Epoch       wal.Epoch
	Incarnation uint32
	Reopened    uint32  // the newest incarnation that admitted a gap
	Frame       uint64  // the last durable one of the incarnation
	Sent        uint64  // the last one that may be in the stream: the server's word of it may come behind a peer's
	WALEnd      wal.LSN // read after the acknowledgement came
	Chains      *Chains // of the newest frames; nil: not asked
}

// AckVerdict is what an acknowledgement is worth.
type AckVerdict uint8

const (
	// Counts: it is of the present incarnation, and of nothing beyond it.
	Counts AckVerdict = iota + 1
	// Outdated: of an incarnation or a WAL before; the peer has not read the present one yet.
	Outdated
	// Ahead: of frames that are not in the stream (any more), or that others have taken the
	// place of; a new incarnation brings both together again.
	Ahead
	// Early: of a frame that was sent and is not known to be durable. The peer has it, so it is, and
	// counts when the server has said so too.
	Early
	// Distant: of a frame so far back that the stream has to be asked whether it is still the one. It
	// counts when it was found there; and the peer is about to read on.
	Distant
	// OtherHistory: of what this server never wrote. It was restored from an older state.
	OtherHistory
	// Senseless: of an incarnation that no restored server can have been at.
	Senseless
)

// farIncarnation is how far an incarnation may lie above the newest one that is known: a server that
// was restored may have forgotten some. More is a mistake or a lie, and believing it would use the
// numbers up.
const farIncarnation = 1 << 24

func far(incarnation, known uint32) bool {
	return uint64(incarnation) > uint64(known)+farIncarnation
}

// Judge decides. Only one that Counts may move the slot, purge frames or end a copy.
func (a Ack) Judge(p Present) AckVerdict {
	switch {
	case a.Incarnation == 0, a.Incarnation < p.Reopened:
		return Outdated
	case far(a.Incarnation, p.Incarnation):
		return Senseless
	case !a.Epoch.SameWAL(p.Epoch):
		// The peer takes nothing but an incarnation above the one that it knows.
		if a.Incarnation >= p.Incarnation {
			return OtherHistory
		}
		return Outdated
	case a.Incarnation > p.Incarnation, a.EndLSN > p.WALEnd:
		return OtherHistory
	case a.Incarnation < p.Incarnation:
		return Outdated
	case a.Frame > max(p.Frame, p.Sent):
		return Ahead
	case a.Frame > p.Frame:
		return Early
	case p.Chains == nil:
		return Counts
	}
	same, known := p.Chains.Is(a.Frame, a.Chain)
	switch {
	case !known:
		return Distant
	case !same:
		return Ahead
	}
	return Counts
}

// Because says why an acknowledgement is of another history.
func (a Ack) Because(p Present) string {
	if !a.Epoch.SameWAL(p.Epoch) {
		return fmt.Sprintf("peer %s has applied incarnation %d of another WAL (%s, now %s): the server was replaced, failed over or restored", a.Peer, a.Incarnation, a.Epoch, p.Epoch)
	}
	if a.Incarnation > p.Incarnation {
		return fmt.Sprintf("peer %s has applied incarnation %d and this database knows of %d only: it was restored from an older state", a.Peer, a.Incarnation, p.Incarnation)
	}
	return fmt.Sprintf("peer %s has applied up to %s and the server's WAL ends at %s: it was restored from an older state", a.Peer, a.EndLSN, p.WALEnd)
}
