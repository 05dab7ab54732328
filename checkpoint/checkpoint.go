package checkpoint

import "github.com/pgwaltz/pgwaltz/wal"

// Checkpoint is how far one origin's stream is applied in the local database. The zero
// Incarnation means that no frame has come yet; its EndLSN may already be set, to where an
// initial copy is complete, if the Epoch is set with it.
type Checkpoint struct {
	Origin      string
	Epoch       wal.Epoch
	Incarnation uint32
	FrameNo     uint64
	// EndLSN: every transaction of Epoch's WAL at or below it is applied.
	EndLSN wal.LSN
	// Mark is the newest transaction that is applied; none lies between it and EndLSN.
	Mark wal.Mark
	// Seen is the EndLSN of the frame. It is below EndLSN while the origin repeats itself:
	// then what is applied is not proved to be of the origin's present history.
	Seen  wal.LSN
	Chain [32]byte
	// StreamSeq is the stream sequence of the frame; reading resumes behind it.
	StreamSeq    uint64
	Transactions uint64 // applied since the checkpoint was created
	CommitTime   wal.Micros
	AppliedAt    wal.Micros
}

// FrameRef is what Check needs of a frame's header.
type FrameRef struct {
	Origin             string
	Epoch              wal.Epoch
	Incarnation        uint32
	Number             uint64
	PrevEndLSN, EndLSN wal.LSN
	Mark               wal.Mark
	PrevChain, Chain   [32]byte
	Resync             bool
	// Resumed: the incarnation holds nothing of what lies before its beginning, unlike one that begins
	// at the slot, which holds all that anybody may miss.
	Resumed bool
	// Newcomers: who has applied nothing of the origin may begin with the incarnation: all tables are
	// copied behind it.
	Newcomers bool
	// SameWAL: a Resync for the sake of peers that miss something. Who does not goes on with what it has.
	SameWAL bool
}

// Verdict is what a frame is to a checkpoint; doc.go says what follows from each.
type Verdict uint8

const (
	Fit Verdict = iota + 1
	Duplicate
	Gap
	Foreign
	NextIncarnation
)

// String returns the word used in logs and metrics.
func (v Verdict) String() string {
	switch v {
	case Fit:
		return "fit"
	case Duplicate:
		return "duplicate"
	case Gap:
		return "gap"
	case Foreign:
		return "foreign"
	case NextIncarnation:
		return "next_incarnation"
	}
	return "unknown"
}

// Check holds the next frame against the checkpoint.
func (c Checkpoint) Check(f FrameRef) Verdict {
	known := c.Epoch.SystemID != 0
	switch {
	case f.Origin != c.Origin || f.Incarnation == 0 || f.Number == 0 || f.EndLSN < f.PrevEndLSN:
		return Foreign
	case c.Incarnation != 0 && far(f.Incarnation, c.Incarnation):
		return Foreign // following it would use the numbers up
	case known && !f.Epoch.SameWAL(c.Epoch):
		if f.Resync && f.Number == 1 && f.Incarnation > c.Incarnation && f.PrevChain == [32]byte{} {
			return NextIncarnation
		}
		return Foreign
	case f.Incarnation < c.Incarnation:
		return Duplicate
	case f.Incarnation > c.Incarnation:
		if f.Number == 1 && f.PrevChain == [32]byte{} && (!known && f.whole() || f.Resync || known && f.PrevEndLSN <= c.EndLSN) {
			return NextIncarnation
		}
		return Gap
	case f.Number == c.FrameNo && f.Chain != c.Chain:
		return Gap // another frame in the place of ours: the stream lost ours, and the origin went on
	case f.Number <= c.FrameNo:
		return Duplicate
	// Positions may lag behind ours while the origin repeats itself; the chain is what
	// proves that nothing lies between.
	case f.Number == c.FrameNo+1 && f.Epoch == c.Epoch && f.PrevChain == c.Chain && f.PrevEndLSN <= c.EndLSN:
		return Fit
	}
	return Gap
}

// whole reports whether everything of the origin comes behind the frame: what was written before its
// incarnation began was copied to nobody yet, or is copied again. Otherwise a region that begins
// there would lack rows and not know it.
func (f FrameRef) whole() bool {
	return f.Newcomers || f.Incarnation == 1 && !f.Resumed
}

// Next is the checkpoint after f, which Check has found Fit or NextIncarnation. The caller
// sets StreamSeq, Transactions, CommitTime and AppliedAt.
func (c Checkpoint) Next(f FrameRef) Checkpoint {
	n := c
	n.Epoch, n.Incarnation, n.FrameNo, n.Chain = f.Epoch, f.Incarnation, f.Number, f.Chain
	n.EndLSN, n.Mark, n.Seen = f.EndLSN, f.Mark, f.EndLSN
	if c.comparable(f) {
		n.EndLSN = max(c.EndLSN, f.EndLSN)
		if c.Mark.EndLSN > f.Mark.EndLSN {
			n.Mark = c.Mark
		}
	}
	return n
}

// Repetition watches what f and the frames behind it repeat of what is applied; nil when f is
// of no history that can be compared. c is the checkpoint before f.
func (c Checkpoint) Repetition(f FrameRef) *Repetition {
	if !c.comparable(f) {
		return nil
	}
	from := c.Seen
	if f.Incarnation != c.Incarnation {
		from = f.PrevEndLSN
	}
	return NewRepetition(c.Mark, c.EndLSN, from)
}

// Covers reports whether a transaction of frame f is applied already, so that it must be
// skipped; only for data frames, because copied and repaired rows have no place in the WAL.
// c is the checkpoint before f, saved or not yet. end is the transaction's EndLSN, or 0 for
// a part of a giant one but the last; then commit, its CommitLSN, decides.
func (c Checkpoint) Covers(f FrameRef, commit, end wal.LSN) bool {
	return c.comparable(f) && covers(c.Mark, commit, end)
}

// comparable reports whether f's positions and ours are of one history.
func (c Checkpoint) comparable(f FrameRef) bool {
	if f.Resync && !(f.SameWAL && f.PrevEndLSN <= c.EndLSN) {
		return false
	}
	return c.Epoch.SystemID != 0 && f.Epoch.SameWAL(c.Epoch)
}
