package apply

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A change may end the session that applies it: a trigger terminates it, or a library brings
// the server down. No SQLSTATE says which change it was, so it is found by what was in hand.

const (
	// lostCarefully is after how many lost sessions at one checkpoint, in one part of a giant transaction, the changes
	// of the part are applied one by one.
	lostCarefully = 4
	// lostStrictly is after how many the constraints are checked behind each change as well.
	lostStrictly = 8
	// lostEverywhere is after how many in all this is so for every part: what a deferred constraint does
	// at the end is because of an earlier part. A server that goes away now and then, for reasons of its own, does that in any part; one by one
	// a giant transaction would take so long that it happened again.
	lostEverywhere = 16
	// lostInHand is how many sessions a change must end to be set aside.
	lostInHand = 3
)

// stateEnded is the SQLSTATE under which such changes are set aside. They are tried again when
// somebody asks for it, or when the table's definition changes, and not by themselves.
const stateEnded = "PW003"

// Suspects remembers, beyond the sessions of an applier, which change was in hand when they
// ended, and how the tables of the origin look now. All appliers of one origin that follow each other share it. Safe for concurrent use.
type Suspects struct {
	mu    sync.Mutex
	at    wal.LSN // the checkpoint at which sessions were lost
	lost  int     // how many, and in each part of a transaction
	parts map[uint32]int
	hand  place         // the change in hand
	ended map[place]int // how many sessions each change has ended

	shapes  shapes
	columns counterpart.Map
	said    saidColumns

	retried map[int64]int // parked changes, and how many sessions of the retrier each has ended
}

// place is a change: the commit of its transaction, its part, and its place there.
type place struct {
	commit wal.LSN
	part   uint32
	n      int
}

// placeOf names the change at position i of a transaction.
func placeOf(k keyedTx, i int) place {
	n := i
	if k.places != nil {
		n = k.places[i]
	}
	return place{k.tx.CommitLSN, k.tx.Part, n}
}

// take notes that a change is in hand.
func (s *Suspects) take(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hand = p
}

// end notes that the session is lost, in a part of a transaction.
func (s *Suspects) end(cp checkpoint.Checkpoint, part uint32, inHand bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil || s.at != cp.EndLSN {
		s.at, s.lost, s.parts, s.ended = cp.EndLSN, 0, map[uint32]int{}, map[place]int{}
	}
	s.lost++
	s.parts[part]++
	if inHand {
		s.ended[s.hand]++
	}
}

// moved notes that something was committed.
func (s *Suspects) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.parts, s.ended = 0, map[uint32]int{}, map[place]int{}
}

// care says how to apply what follows the checkpoint: the part of a transaction, or 0 for whole ones.
func (s *Suspects) care(cp checkpoint.Checkpoint, part uint32) (carefully, strictly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at != cp.EndLSN {
		return false, false
	}
	n := s.parts[part]
	return n >= lostCarefully || s.lost >= lostEverywhere, n >= lostStrictly || s.lost >= lostEverywhere+lostCarefully
}

// partOf is the part that is applied; 0 for whole transactions.
func partOf(txs []keyedTx) uint32 {
	if len(txs) == 0 {
		return 0
	}
	return txs[0].tx.Part
}

// convicted reports whether a change is to be set aside without being tried.
func (s *Suspects) convicted(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[p] >= lostInHand
}

// lostRetrying is how many sessions a parked change must end, when it is tried again by itself, to
// be left alone.
const lostRetrying = 2

// endedRetry notes that a session was lost while one parked change was tried again.
func (s *Suspects) endedRetry(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retried == nil {
		s.retried = map[int64]int{}
	}
	s.retried[id]++
}

// leaveAlone returns the parked changes that end every session, and forgets them.
func (s *Suspects) leaveAlone() (ids []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.retried {
		if n >= lostRetrying {
			ids = append(ids, id)
			delete(s.retried, id)
		}
	}
	return ids
}

// endedReason is why a convicted change is set aside.
func endedReason() reason {
	return reason{stateEnded, "the session ended each time while this change was applied"}
}
