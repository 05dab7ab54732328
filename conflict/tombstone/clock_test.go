package tombstone_test

import (
	"math/rand/v2"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestClockRises: times rise in WAL order, whatever the server's clock does, and a time that is
// ahead of all in front of it is left as it is.
func TestClockRises(t *testing.T) {
	t.Parallel()
	var c tombstone.Clock
	c.Begin(100, 0)
	for _, s := range []struct {
		commit   wal.LSN
		at, want wal.Micros
	}{{110, 1000, 1000}, {120, 2000, 2000}, {130, 2000, 2001}, {140, 500, 2002}, {150, 2003, 2003}, {140, 500, 2002}, {110, 1000, 1000}} {
		if got := c.Time(s.commit, s.at); got != s.want {
			t.Errorf("transaction at %d, time %d: %d, want %d", s.commit, s.at, got, s.want)
		}
	}
}

// TestClockAtEveryDecoding: a decoding that begins where a position was stored gives the same
// times, however many transactions there were.
func TestClockAtEveryDecoding(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	for _, n := range []int{50, 300_000} {
		commits, times := make([]wal.LSN, n), make([]wal.Micros, n)
		at, now := wal.LSN(1000), wal.Micros(1_000_000)
		for i := range commits {
			at += wal.LSN(1 + r.IntN(100))
			now += wal.Micros(r.IntN(1000) - 300)
			if r.IntN(1000) == 0 {
				now -= 500_000
			}
			commits[i], times[i] = at, now
		}
		var first tombstone.Clock
		first.Begin(900, 0)
		given := make([]wal.Micros, n)
		for i := range commits {
			given[i] = first.Time(commits[i], times[i])
			if i > 0 && given[i] <= given[i-1] {
				t.Fatalf("transaction %d has %d behind %d", i, given[i], given[i-1])
			}
		}
		exact := 0
		for range 2000 {
			l := commits[r.IntN(n)] + wal.LSN(r.IntN(3)) - 1
			from, high := first.At(l)
			if from > l || from < 900 {
				t.Fatalf("position %d for %d", from, l)
			}
			if from == l {
				exact++
			}
			var again tombstone.Clock
			again.Begin(from, high)
			for i, k := 0, 0; i < n && k < 20; i++ {
				if commits[i] < from {
					continue
				}
				if k++; again.Time(commits[i], times[i]) != given[i] {
					t.Fatalf("decoded from %d: transaction %d has another time", from, i)
				}
			}
		}
		if n == 50 && exact != 2000 {
			t.Errorf("%d of 2000 positions were exact", exact)
		}
		// What is behind a stored position comes out the same.
		l, high := first.At(commits[n/2] + 1)
		first.Forget(l)
		if from, again := first.At(l); from != l || again != high {
			t.Errorf("at %d: %d, %d; want %d", l, from, again, high)
		}
		if from, _ := first.At(commits[0]); from != 0 {
			t.Errorf("a position in front of the beginning is known: %d", from)
		}
	}
}
