package checkpoint

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Tail is what the region's own stream ends with.
type Tail struct {
	Found       bool // there is an intact frame of our own
	Damaged     bool // behind it lie frames of ours that cannot be read
	Open        bool // it ends inside a transaction
	Epoch       wal.Epoch
	Incarnation uint32
	EndLSN      wal.LSN
	Mark        wal.Mark
}

// Slot is what the server says of the replication slot.
type Slot struct {
	Found, Lost bool
	Confirmed   wal.LSN
}

// Stored is what the database remembers of the region's own stream.
type Stored struct {
	Incarnation uint32 // the newest one; 0 before the first
	Reopened    uint32 // the newest one that admitted a gap; 0 for none
	Loose       uint64 // frame of it up to which parts were purged that not every peer had committed
	Loosened    uint32 // the newest incarnation that this has happened in; 0 for none
	Epoch       wal.Epoch
	Gap         bool   // a gap is noted: found by us, or told by a peer
	History     bool   // the gap is a restored server: nothing may be published
	Why         string // of the gap
	Resync      bool   // an operator asked for `pgwaltz resync`
	Newcomer    bool   // a peer that has applied nothing waits for an incarnation to begin with
	// Passed is a position that was confirmed, and that every peer and the self-merge had applied, on disk; 0 for
	// none. It was stored behind itself in the WAL that it is of, so a database that knows it has this very WAL up to
	// there. The slot may be in front of it: the server saves it with a checkpoint only, and a crash takes it back.
	Passed wal.LSN
}

// Situation is everything that decides where publishing begins.
type Situation struct {
	Epoch  wal.Epoch // of the server, now
	WALEnd wal.LSN   // read after everything else
	Tail   Tail
	Slot   Slot
	Stored Stored
	Peers  int
	Acks   []Ack
	// Merged is the position up to which the self-merge has recorded this region's changes in the
	// database; 0 when that is of another WAL. That the database has it proves that its own WAL holds
	// what the stream says up to there: a server that was restored would have forgotten it.
	Merged wal.LSN
	// Unread: the self-merge has not begun with the newest incarnation that admitted a gap.
	Unread bool
	// Renew: a new incarnation is wanted, because a peer misses frames of this one.
	Renew bool
	// Unsure: the stream's machine, or its disk, has failed before all that it had acknowledged was on disk. It may have
	// lost its end, or frames in its midst, that peers have applied. Nothing of that was confirmed.
	Unsure bool
}

// Step is what to do.
type Step uint8

const (
	// Continue behind the stream's last frame.
	Continue Step = iota + 1
	// Resume: a new incarnation behind the stream's last complete transaction. The stream ends inside
	// the next one, which is published again from its beginning.
	Resume
	// Renew: a new incarnation from the slot, which covers what every peer has applied.
	Renew
	// Reopen: a new incarnation from the slot that admits a gap. Tables are copied behind it.
	Reopen
	// Stop: a gap. Nothing may be published until an operator runs the remedy.
	Stop
)

// String returns the word used in logs.
func (s Step) String() string {
	return [...]string{"unknown", "continue", "resume", "renew", "reopen", "stop"}[min(s, Stop)]
}

// Decision is the answer of Begin. Why and Remedy say why it has to stop or to reopen, and
// what an operator types; From and To are the gap.
//
// History says that this server was restored or replaced. That stays so, although what showed it may be
// gone at the next look: the WAL grows beyond what a peer has applied, the stream loses its end.
// The caller stores it (Stored.History).
type Decision struct {
	Step        Step
	History     bool
	Incarnation uint32 // of Resume, Renew and Reopen
	From, To    wal.LSN
	Why, Remedy string
}

// The remedies; the sidecar fills the configuration's path in.
const (
	RemedyResync = "run: pgwaltz resync --config FILE"
	RemedySlot   = "run: pgwaltz resync --config FILE --recreate-slot"
)

// Begin decides where publishing begins; the table is in doc.go. No clock takes part.
func (s Situation) Begin() Decision {
	s.Renew = s.Renew || s.Stored.Newcomer
	d := s.gap()
	switch {
	case d.Step == Stop && d.Remedy == RemedySlot:
		return d // without a slot there is nothing to begin at
	case s.Stored.Resync && (d.Step == Stop || s.Stored.Gap):
		d.Step = Reopen
	case d.Step == Stop && s.Stored.Reopened != 0 && s.Stored.Reopened == s.Stored.Incarnation && s.tooLow():
		// The operator has accepted the gap already; the incarnation was only numbered too low
		// to be noticed by a peer that knows a later one.
		d.Step = Reopen
	case (d.Step == Renew || d.Step == Stop && d.History) && s.unseen():
		d.Step, d.History = Reopen, true // of which history that gap was is not known any more
		d.Why, d.Remedy = "the stream lacks the incarnation that admitted the last gap", ""
	}
	if d.Step == Reopen || d.Step == Renew || d.Step == Resume {
		d.Incarnation = s.next()
	}
	return d
}

// Opening is where a new incarnation begins, and the newest transaction at or below that; the zero
// Mark when it is not known.
func (s Situation) Opening(d Decision) (wal.LSN, wal.Mark) {
	switch d.Step {
	case Resume:
		return s.Tail.EndLSN, s.Tail.Mark
	case Renew:
		at := s.renewal()
		return at, s.mark(at)
	}
	return s.Slot.Confirmed, wal.Mark{}
}

// renewal is where a new incarnation begins that covers what any peer may miss: at the slot, or behind what
// every peer has passed, where the slot has gone back. A peer that misses frames may miss what lies
// before that, and so may one that says itself that it has applied less.
func (s Situation) renewal() wal.LSN {
	at := s.Stored.Passed
	if s.Renew || s.Stored.Newcomer || s.Stored.Epoch != s.Epoch || at > min(s.Merged, s.WALEnd) {
		return s.Slot.Confirmed
	}
	for _, a := range s.Acks {
		if a.EndLSN < at || !a.Epoch.SameWAL(s.Epoch) {
			return s.Slot.Confirmed
		}
	}
	return max(at, s.Slot.Confirmed)
}

// Reading is where to begin to read the WAL. The slot holds it back for peers, and the stream may hold
// it all the same: what is in the stream, merged here, and of a known clock is not decoded again. stored
// are the positions that the clock of the WAL is stored for, rising; at each of them, what was committed
// below was visible to everybody. A new incarnation from the slot is read from where it begins (Opening).
func (s Situation) Reading(d Decision, stored []wal.LSN) wal.LSN {
	from := s.Slot.Confirmed
	switch d.Step {
	case Continue, Resume:
	case Renew:
		return s.renewal()
	default:
		return from
	}
	for _, at := range stored {
		if at <= min(s.Merged, s.Tail.EndLSN) {
			from = max(from, at)
		}
	}
	return from
}

// resumes reports whether the stream holds all that any peer may miss up to where it ends, except for
// an open transaction, so that a new incarnation may begin there. Parts that were purged before every
// peer had committed them do not come back that way.
func (s Situation) resumes() bool {
	t := s.Tail
	return t.Found && t.Open && !t.Damaged && !s.Renew && !s.Unsure && t.Mark != (wal.Mark{}) && s.Slot.Confirmed <= t.EndLSN &&
		t.Incarnation >= s.Stored.Reopened && t.Incarnation > s.Stored.Loosened
}

// Past watches what the WAL repeats of what the stream holds; nil when it holds nothing of it. What is
// merged need not be shown again.
func (s Situation) Past() *Repetition {
	if !s.Tail.Found || !s.Tail.Epoch.SameWAL(s.Epoch) {
		return nil
	}
	return NewRepetition(s.Tail.Mark, s.Tail.EndLSN, max(s.Slot.Confirmed, s.Merged))
}

// Published is how far this WAL was published before, as far as anybody knows. Of a stream that may have lost its
// end nobody does: a peer that is out of reach may have read all that there was.
func (s Situation) Published() wal.LSN {
	at := s.Merged
	if s.Unsure {
		at = max(at, s.WALEnd)
	}
	if s.Tail.Found && s.Tail.Epoch.SameWAL(s.Epoch) {
		at = max(at, s.Tail.EndLSN)
	}
	for _, a := range s.Acks {
		if a.Epoch.SameWAL(s.Epoch) && a.EndLSN <= s.WALEnd {
			at = max(at, a.EndLSN)
		}
	}
	return at
}

// Skips reports whether the slot begins behind WAL that was not read here: what was written in it is neither published nor
// merged. Where it does not, a gap that is accepted is one of what peers have of it.
func (s Situation) Skips() bool { return s.Slot.Confirmed > s.Merged }

// Unmerged is the time of the newest transaction that was published of this WAL, where not all of that is merged: false where
// it is, or nothing is known.
func (s Situation) Unmerged() (wal.Micros, bool) {
	if !s.Tail.Found || !s.Tail.Epoch.SameWAL(s.Epoch) || s.Stored.History || s.Merged >= s.Tail.EndLSN {
		return 0, false
	}
	return s.Tail.Mark.CommitTime, s.Tail.Mark != (wal.Mark{})
}

// mark is the newest transaction at or below a position; zero when it is not known: a
// stream that has lost its end does not tell.
func (s Situation) mark(at wal.LSN) wal.Mark {
	if s.Tail.Found && s.Tail.Epoch.SameWAL(s.Epoch) && s.Tail.Mark.EndLSN <= at && at <= s.Tail.EndLSN {
		return s.Tail.Mark
	}
	return wal.Mark{}
}

// unseen reports whether the newest incarnation that admitted a gap is not in the stream, and nobody here has read it: the
// process ended before its first frame was stored, or the stream lost it at once. The operator has accepted that gap, and
// who reads on has to be told of it.
func (s Situation) unseen() bool {
	return s.Unread && s.Stored.Reopened != 0 && !(s.Tail.Found && s.Tail.Incarnation >= s.Stored.Reopened)
}

// gap decides without regard to what an operator asked for.
func (s Situation) gap() Decision {
	stop := func(from, to wal.LSN, remedy, format string, args ...any) Decision {
		return Decision{Step: Stop, From: from, To: to, Remedy: remedy, Why: fmt.Sprintf(format, args...)}
	}
	history := func(from, to wal.LSN, format string, args ...any) Decision {
		d := stop(from, to, RemedyResync, format, args...)
		d.History = true
		return d
	}
	from, last := s.Slot.Confirmed, s.Tail.EndLSN
	switch {
	case !s.Slot.Found:
		return stop(last, s.WALEnd, RemedySlot, "the slot is missing")
	case s.Slot.Lost:
		return stop(last, s.WALEnd, RemedySlot, "the slot is lost: the server removed WAL that it still needed (max_slot_wal_keep_size)")
	case s.Stored.Epoch.SystemID != 0 && !s.Stored.Epoch.SameWAL(s.Epoch):
		return history(last, from, "this region published from another WAL before (%s, now %s): the server was replaced, failed over or restored", s.Stored.Epoch, s.Epoch)
	case s.Tail.Found && !s.Tail.Epoch.SameWAL(s.Epoch):
		return history(last, from, "the stream was published from another WAL (%s, now %s): the server was replaced, failed over or restored", s.Tail.Epoch, s.Epoch)
	case s.Stored.History:
		return history(last, from, "%s", s.Stored.Why)
	case s.Tail.Found && s.Tail.Incarnation > s.Stored.Incarnation:
		return history(last, from, "the stream holds incarnation %d and the database knows of %d only: it was restored from an older state", s.Tail.Incarnation, s.Stored.Incarnation)
	}
	for _, a := range s.Acks {
		if s.judge(a) == OtherHistory {
			return history(a.EndLSN, s.WALEnd, "%s", s.because(a))
		}
	}
	switch {
	case s.Tail.Found && s.WALEnd < last:
		return history(last, s.WALEnd, "the server's WAL ends at %s, before what was published: it was restored from an older state", s.WALEnd)
	case s.resumes():
		return Decision{Step: Resume}
	case !s.Tail.Found, s.Renew, s.Unsure, s.Tail.Damaged, s.Tail.Open, s.Tail.Incarnation < s.Stored.Incarnation:
		// The stream is gone, may lack something or ends in the middle of something, or a peer misses a
		// piece of it: publish again what the slot holds. A peer that it does not reach back to says so.
		return Decision{Step: Renew}
	case s.Tail.Mark == (wal.Mark{}) && from < last:
		// The incarnation does not know what lies at or below its beginning, and the slot has
		// gone back, perhaps below that: what it would show there could not be told from what
		// the incarnation holds. A new one begins where the slot is.
		return Decision{Step: Renew}
	case from > last:
		if s.appliedEverywhere(from) {
			return Decision{Step: Renew}
		}
		return stop(last, from, RemedyResync, "the slot begins at %s, behind what was published: it was created anew, or moved by hand", from)
	}
	return Decision{Step: Continue}
}

// next is a number that nobody has seen.
func (s Situation) next() uint32 {
	n := max(s.Stored.Incarnation, s.Tail.Incarnation)
	for _, a := range s.Acks {
		if !far(a.Incarnation, s.Stored.Incarnation) {
			n = max(n, a.Incarnation)
		}
	}
	return n + 1
}

func (s Situation) tooLow() bool {
	for _, a := range s.Acks {
		if far(a.Incarnation, s.Stored.Incarnation) {
			continue
		}
		if a.Incarnation > s.Stored.Incarnation || a.Incarnation == s.Stored.Incarnation && !a.Epoch.SameWAL(s.Epoch) {
			return true
		}
	}
	return false
}

// appliedEverywhere reports whether every peer has applied everything below at.
func (s Situation) appliedEverywhere(at wal.LSN) bool {
	n := 0
	for _, a := range s.Acks {
		if !a.Epoch.SameWAL(s.Epoch) || a.Proved < at {
			return false
		}
		n++
	}
	return n >= s.Peers && n > 0
}

// judge holds an acknowledgement against what is stored; frames are not compared.
func (s Situation) judge(a Ack) AckVerdict {
	return a.Judge(Present{
		Epoch: s.Epoch, Incarnation: s.Stored.Incarnation, Reopened: s.Stored.Reopened, Frame: ^uint64(0), WALEnd: s.WALEnd,
	})
}

func (s Situation) because(a Ack) string {
	return a.Because(Present{Epoch: s.Epoch, Incarnation: s.Stored.Incarnation, WALEnd: s.WALEnd})
}
