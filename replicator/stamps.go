package replicator

import (
	"sync"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Stamps keeps the stamps that cannot be read from the rows again, for as long as their
// transactions may be published a second time: a change must have the same stamp whenever it
// is decoded, or peers that saw the first and peers that saw the second would differ. It
// outlives the runs of the outbound pipe. Safe for concurrent use.
type Stamps struct {
	mu    sync.Mutex
	known map[stampKey]kept
	order []stampKey
}

type stampKey struct {
	commit wal.LSN
	part   uint32
}

// kept is what one transaction, or part of one, was given.
type kept struct {
	at     wal.Micros // time of its first change without stamp columns
	stamps []keptStamp
}

type keptStamp struct {
	stamp wal.Stamp
	base  uint32 // generation of what was overwritten
}

// NewStamps makes an empty memory.
func NewStamps() *Stamps { return &Stamps{known: map[stampKey]kept{}} }

func (s *Stamps) get(tx *wal.Transaction) (kept, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[stampKey{tx.CommitLSN, tx.Part}]
	return k, ok && len(k.stamps) == len(tx.Changes)
}

func (s *Stamps) put(tx *wal.Transaction, at wal.Micros) {
	k := kept{at: at, stamps: make([]keptStamp, len(tx.Changes))}
	for i := range tx.Changes {
		k.stamps[i] = keptStamp{tx.Changes[i].Stamp, tx.Changes[i].Base.Stamp.Generation}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := stampKey{tx.CommitLSN, tx.Part}
	if _, ok := s.known[id]; !ok {
		s.order = append(s.order, id)
	}
	s.known[id] = k
}

// Confirmed forgets what the server will not send again.
func (s *Stamps) Confirmed(l wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.order) && s.order[n].commit < l {
		delete(s.known, s.order[n])
		n++
	}
	s.order = s.order[n:]
	if len(s.order) == 0 {
		s.order = nil
	}
}
