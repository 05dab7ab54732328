package sim

import (
	"fmt"
	"time"
)

// trace hashes what happens, and tells it where somebody listens.
type trace struct {
	hash  uint64
	print func(string)
	began time.Time
}

func newTrace(print func(string)) trace {
	return trace{hash: 14695981039346656037, print: print, began: time.Now()}
}

func (t *trace) sum() uint64 { return t.hash }

func (t *trace) mix(v uint64) { t.hash = (t.hash ^ v) * 1099511628211 }

// note records an event of a region.
func (w *World) note(region int, what string, a, b uint64) {
	t := &w.trace
	t.mix(uint64(time.Since(t.began)))
	t.mix(uint64(region))
	for i := range len(what) {
		t.mix(uint64(what[i]))
	}
	t.mix(a)
	t.mix(b)
	if t.print != nil {
		t.print(fmt.Sprintf("%12s %c  %-14s %d %d", time.Since(t.began), 'a'+rune(region), what, a, b))
	}
}

// say adds words that only a reader needs.
func (w *World) say(region int, format string, args ...any) {
	if w.trace.print != nil {
		w.trace.print(fmt.Sprintf("%14c  "+format, append([]any{'a' + rune(region)}, args...)...))
	}
}

func (s *Stats) add(o Stats) {
	s.Transactions += o.Transactions
	s.Conflicts += o.Conflicts
	s.Frames += o.Frames
	s.Fragments += o.Fragments
	s.Parts += o.Parts
	s.Crashes += o.Crashes
	s.Faults += o.Faults
	s.Rewinds += o.Rewinds
	s.Gaps += o.Gaps
	s.Duplicates += o.Duplicates
	s.Quarantined += o.Quarantined
	s.Parked += o.Parked
	s.Pushbacks += o.Pushbacks
	s.Barriers += o.Barriers
	s.Races += o.Races
	s.Restores += o.Restores
	s.PowerCuts += o.PowerCuts
	s.Lost += o.Lost
	s.Notices += o.Notices
	s.Stalls += o.Stalls
	s.Overdue += o.Overdue
	s.Recorded += o.Recorded
	s.Proofs += o.Proofs
	s.Lookups += o.Lookups
	s.Refused += o.Refused
	s.Retried += o.Retried
	s.Passed += o.Passed
	s.Recalled += o.Recalled
	s.AtOnce += o.AtOnce
	s.Far += o.Far
}
