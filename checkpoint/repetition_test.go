package checkpoint

import (
	"errors"
	"math/rand"
	"testing"
	"testing/quick"

	"github.com/pgwaltz/pgwaltz/wal"
)

// history draws transactions with rising positions; another one of the same seed and prefix is
// equal up to there and has transactions of its own behind.
func history(r *rand.Rand, n int, after []*wal.Transaction, xid wal.XID) []*wal.Transaction {
	out := append([]*wal.Transaction(nil), after...)
	at := wal.LSN(100)
	if len(out) > 0 {
		at = out[len(out)-1].EndLSN
	}
	for i := range n {
		at += wal.LSN(1 + r.Intn(9))
		t := &wal.Transaction{XID: xid + wal.XID(i), CommitLSN: at, CommitTime: wal.Micros(at) * 1000}
		at += wal.LSN(1 + r.Intn(9))
		t.EndLSN = at
		out = append(out, t)
	}
	return out
}

// replay shows a history from a position on, and says whether it is taken for the known one,
// and which transactions were neither known nor shown.
func replay(h []*wal.Transaction, rep *Repetition, from, end wal.LSN) (fresh []*wal.Transaction, err error) {
	for _, tx := range h {
		if tx.EndLSN <= from {
			continue
		}
		if err := rep.Show(tx); err != nil {
			return nil, err
		}
		if !rep.Knows(tx) {
			fresh = append(fresh, tx)
		}
	}
	return fresh, rep.Reach(end)
}

// Of the same history, every repetition is proved and gives exactly what is missing. Of
// another one, nothing that differs below the known end goes unnoticed.
func TestRepetitionProperty(t *testing.T) {
	t.Parallel()
	err := quick.Check(func(seed int64) bool {
		r := rand.New(rand.NewSource(seed))
		common := history(r, r.Intn(8), nil, 100)
		old := history(r, 1+r.Intn(8), common, 1000)
		other := history(r, r.Intn(12), common, 2000)
		known := r.Intn(len(old)) + 1
		mark := wal.MarkOf(old[known-1])
		end := mark.EndLSN
		if known < len(old) {
			end += wal.LSN(r.Intn(int(old[known].CommitLSN-mark.EndLSN) + 1)) // a position in the quiet behind it
		} else {
			end += wal.LSN(r.Intn(20))
		}
		from := wal.LSN(90) // where the slot is: at a position that both share
		if len(common) > 0 {
			from = common[r.Intn(len(common))].EndLSN
		}
		fresh, err := replay(old, NewRepetition(mark, end, from), from, max(end, old[len(old)-1].EndLSN))
		want := 0
		for _, tx := range old[known:] {
			if tx.EndLSN > from {
				want++
			}
		}
		if err != nil || len(fresh) != want {
			t.Errorf("seed %d: the same history: %v, %d new of %d", seed, err, len(fresh), want)
			return false
		}
		last := wal.LSN(0)
		if len(other) > 0 {
			last = other[len(other)-1].EndLSN
		}
		_, err = replay(other, NewRepetition(mark, end, from), from, max(end, last))
		if known > len(common) && from < mark.EndLSN { // what was known is not in it
			if !errors.Is(err, ErrHistory) {
				t.Errorf("seed %d: another history is taken for the known one", seed)
				return false
			}
			return true
		}
		for _, tx := range other[len(common):] {
			if tx.EndLSN <= end && err == nil {
				t.Errorf("seed %d: a transaction at %s of another history goes unnoticed below %s", seed, tx.EndLSN, end)
				return false
			}
		}
		return true
	}, &quick.Config{MaxCount: 3000})
	if err != nil {
		t.Error(err)
	}
}

func TestRepetitionOfParts(t *testing.T) {
	t.Parallel()
	mark := wal.Mark{EndLSN: 200, XID: 9, CommitTime: 5}
	part := func(commit wal.LSN) *wal.Transaction {
		return &wal.Transaction{XID: 9, CommitLSN: commit, CommitTime: 5, More: true}
	}
	r := NewRepetition(mark, 250, 100)
	if err := r.Show(part(190)); err != nil || !r.Knows(part(190)) {
		t.Errorf("a part of the last known transaction: %v", err)
	}
	if err := r.Show(&wal.Transaction{XID: 9, CommitLSN: 190, EndLSN: 200, CommitTime: 5}); err != nil || !r.Proven() {
		t.Errorf("its end: %v", err)
	}
	if err := r.Show(part(220)); !errors.Is(err, ErrHistory) {
		t.Errorf("a part between mark and end: %v", err)
	}
	if err := r.Show(part(250)); err != nil || r.Knows(part(250)) {
		t.Errorf("a part behind the end: %v", err)
	}
	if err := NewRepetition(mark, 250, 100).Show(part(300)); !errors.Is(err, ErrHistory) {
		t.Errorf("a part behind, the mark was not shown: %v", err)
	}
	none := NewRepetition(wal.Mark{}, 250, 100)
	if err := none.Show(part(220)); err != nil || none.Knows(part(90)) || !none.Proven() {
		t.Errorf("without a mark nothing is known and nothing refused: %v", err)
	}
}
