package sidecar

import (
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// troubles are the errors of pipes that are not over, by the pipe's name. The owner guards it.
type troubles map[string]*status.LastError

// newest is the one that happened last; nil when all is well.
func (t troubles) newest() *status.LastError {
	var last *status.LastError
	for _, e := range t {
		if last == nil || e.At.After(last.At) {
			last = e
		}
	}
	return last
}

// failed keeps the error of a pipe for the status, until it is over.
func (s *Sidecar) failed(pipe string, err error) {
	now := time.Now()
	e := &status.LastError{At: now, Since: now, Message: publicMessage(err), SQLState: pg.Code(err)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.troubles[pipe]; before != nil {
		e.Since = before.Since
	}
	s.troubles[pipe], s.lastErrAt = e, now
}

// over forgets the error of a pipe that moves again.
func (s *Sidecar) over(pipe string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.troubles, pipe)
}

// trouble is the error of a pipe that is not over; nil for none.
func (s *Sidecar) trouble(pipe string) *status.LastError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.troubles[pipe]
}

// failing reports whether a pipe has failed for a while, and lately, without getting on in between: it
// is down also while it is tried again.
func failing(e *status.LastError, now time.Time) bool {
	return e != nil && e.At.Sub(e.Since) > failingFor && now.Sub(e.At) < failingLately
}

// failingLately is how long ago the last failure may be of a pipe that fails again and again: a try
// may read a large transaction before it fails.
const failingLately = 30 * time.Second
