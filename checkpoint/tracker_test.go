package checkpoint

import (
	"errors"
	"math/rand"
	"testing"
	"testing/quick"

	"github.com/pgwaltz/pgwaltz/wal"
)

// model is the tracker as one would say it: keep everything, look at everything.
type model struct {
	start wal.LSN
	noted []wal.LSN
	done  []bool
}

func (m *model) safe() wal.LSN {
	safe := m.start
	for i, lsn := range m.noted {
		// A position is safe when nothing at or below it is outstanding.
		for j := range m.noted {
			if m.noted[j] <= lsn && !m.done[j] {
				return safe
			}
		}
		safe = m.noted[i]
	}
	return safe
}

func TestTrackerAgainstModel(t *testing.T) {
	t.Parallel()
	err := quick.Check(func(seed int64) bool {
		r := rand.New(rand.NewSource(seed))
		start := wal.LSN(r.Intn(50))
		tr, m := NewTracker(start), &model{start: start}
		last, before := start, start
		for range 120 {
			if r.Intn(2) == 0 || len(m.noted) == 0 {
				last += wal.LSN(r.Intn(3)) // positions repeat
				if err := tr.Note(last); err != nil {
					t.Error(err)
				}
				m.noted, m.done = append(m.noted, last), append(m.done, false)
			} else {
				i := r.Intn(len(m.noted))
				if !m.done[i] {
					m.done[i] = true
					if err := tr.Done(m.noted[i]); err != nil {
						t.Error(err)
					}
				}
			}
			open := 0
			for _, d := range m.done {
				if !d {
					open++
				}
			}
			safe := tr.Safe()
			// A safe position that is noted again stays safe: the frame adds nothing to it.
			if want := max(m.safe(), before); safe != want || safe < before || safe > tr.Noted() || tr.Outstanding() != open {
				t.Errorf("safe %s, model %s, before %s, noted %s, outstanding %d of %d", safe, want, before, tr.Noted(), tr.Outstanding(), open)
				return false
			}
			if len(tr.open)-tr.head > open && open == 0 {
				t.Error("marks are left although nothing is outstanding")
			}
			before = safe
		}
		return true
	}, &quick.Config{MaxCount: 300})
	if err != nil {
		t.Error(err)
	}
}

func TestTrackerRefuses(t *testing.T) {
	t.Parallel()
	tr := NewTracker(10)
	if err := tr.Note(9); !errors.Is(err, ErrOrder) {
		t.Errorf("below the start: %v", err)
	}
	for _, lsn := range []wal.LSN{20, 30} {
		if err := tr.Note(lsn); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Note(25); !errors.Is(err, ErrOrder) {
		t.Errorf("out of order: %v", err)
	}
	for _, lsn := range []wal.LSN{5, 25, 31} {
		if err := tr.Done(lsn); !errors.Is(err, ErrUnknown) {
			t.Errorf("done %s: %v", lsn, err)
		}
	}
	if err := tr.Done(30); err != nil {
		t.Fatal(err)
	}
	if err := tr.Done(30); !errors.Is(err, ErrUnknown) {
		t.Errorf("done twice while outstanding below: %v", err)
	}
	if tr.Safe() != 10 {
		t.Errorf("safe %s while 0/14 is outstanding", tr.Safe())
	}
}

func TestTrackerMemoryIsBounded(t *testing.T) {
	t.Parallel()
	tr := NewTracker(0)
	for i := wal.LSN(1); i <= 1_000_000; i++ {
		if err := tr.Note(i); err != nil {
			t.Fatal(err)
		}
		if i > 100 {
			if err := tr.Done(i - 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	if cap(tr.open) > 1024 {
		t.Errorf("room for %d marks with 100 outstanding", cap(tr.open))
	}
	if tr.Safe() != 1_000_000-100 {
		t.Errorf("safe %s", tr.Safe())
	}
}

func BenchmarkTracker(b *testing.B) {
	tr := NewTracker(0)
	for i := 1; b.Loop(); i++ {
		if err := tr.Note(wal.LSN(i)); err != nil {
			b.Fatal(err)
		}
		if i > 64 {
			if err := tr.Done(wal.LSN(i - 64)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
