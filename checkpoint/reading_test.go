package checkpoint

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What is in the stream, merged here, and of a known clock is not read again, although the slot holds it.
func TestReadingBeginsBehindWhatIsMerged(t *testing.T) {
	t.Parallel()
	clock := []wal.LSN{500, 560, 640, 690, 720}
	for name, c := range map[string]struct {
		change func(*Situation)
		want   wal.LSN
	}{
		"nothing is merged":           {nil, 500},
		"merged in between":           {func(s *Situation) { s.Merged = 650 }, 640},
		"merged beyond the stream":    {func(s *Situation) { s.Merged, s.WALEnd = 880, 900 }, 690},
		"merged before the slot":      {func(s *Situation) { s.Merged = 400 }, 500},
		"open transaction":            {func(s *Situation) { s.Merged, s.Tail.Open = 700, true }, 690},
		"parts purged: from the slot": {func(s *Situation) { s.Merged, s.Tail.Open, s.Stored.Loosened = 700, true, 3 }, 500},
		"a peer misses frames":        {func(s *Situation) { s.Merged, s.Renew = 700, true }, 500},
		"the stream is lost":          {func(s *Situation) { s.Merged, s.Tail = 700, Tail{} }, 500},
	} {
		s := running(c.change)
		if got := s.Reading(s.Begin(), clock); got != c.want {
			t.Errorf("%s: from %d, want %d", name, got, c.want)
		}
	}
	s := running(func(s *Situation) { s.Merged = 650 })
	if got := s.Reading(s.Begin(), nil); got != 500 {
		t.Errorf("no clock is stored: from %d", got)
	}
}

// A database that has merged the newest transaction of the stream has it in its own WAL. One that has
// merged less, as one that was restored, has to show it.
func TestWhatIsMergedIsProved(t *testing.T) {
	t.Parallel()
	for merged, want := range map[wal.LSN]bool{0: false, 689: false, 690: true, 800: true} {
		if got := running(func(s *Situation) { s.Merged = merged }).Past().Proven(); got != want {
			t.Errorf("merged up to %d: proved %v", merged, got)
		}
	}
}
