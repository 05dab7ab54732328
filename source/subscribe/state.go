package subscribe

import (
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// State is what status and metrics say of one origin's stream.
type State struct {
	// Reachable: the stream answered within the last heartbeats. Err is what the last try ran
	// into while it does not.
	Reachable bool
	Err       error
	SeenAt    time.Time
	// Read is the place up to which frames were read and checked, ahead of what is applied.
	Read checkpoint.Checkpoint
	// OriginLSN is the highest EndLSN seen in the origin's present WAL, SentAt the origin's
	// clock in its newest frame, LastSeq the stream's newest sequence that we know of.
	OriginLSN wal.LSN
	SentAt    wal.Micros
	LastSeq   uint64
	// Backlog counts frames in the stream and packets in the queue that are not delivered.
	Backlog uint64
	// Gap is what is missing, nil for nothing.
	Gap *GapError
	// Counted since the start of the process.
	Frames, Duplicates, Refused, Rewinds uint64
	LastRefused                          string // the reason
	// RefusedSince is since when nothing has come that continues what was read, but messages that are refused; zero for not so.
	RefusedSince time.Time
}

// GapError: the stream goes on behind a hole. From and To are positions of the origin's WAL;
// what lies between was not received. It heals when the missing frames or a new incarnation
// come; while Refused is empty that is under way.
type GapError struct {
	Origin      string
	Incarnation uint32
	Frame       uint64 // the last good one
	From, To    wal.LSN
	Since       time.Time
	Reason      string
	// Refused is why the origin cannot send it again; then only a resync helps.
	Refused string
}

func (e *GapError) Error() string {
	text := fmt.Sprintf("changes of %s between %s and %s are missing: %s", e.Origin, e.From, e.To, e.Reason)
	if e.Refused != "" {
		text += "; it cannot send them again: " + e.Refused
	}
	return text
}

// Hint tells an operator what to do.
func (e *GapError) Hint() string {
	if e.Refused == "" {
		return "nothing yet: the origin is asked to send it again from its slot"
	}
	return "run `pgwaltz resync` for the origin; until then its changes wait, and this region's own go on"
}

// State is the present state.
func (s *Subscription) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.Backlog += uint64(max(0, s.queued.Load()))
	if st.Gap != nil {
		g := *st.Gap
		st.Gap = &g
	}
	return st
}

func (s *Subscription) note(f func(st *State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}
