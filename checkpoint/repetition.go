package checkpoint

import (
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrHistory is the class of all HistoryErrors, for errors.Is.
var ErrHistory = errors.New("the WAL has another history")

// HistoryError says that a WAL repeats positions with other transactions than it had there
// before: the server was restored from an older state. No repetition mends it.
type HistoryError struct {
	Known wal.Mark // the newest transaction that was known
	Shown wal.Mark // what came in its place; zero when nothing did
}

func (e *HistoryError) Error() string {
	if e.Shown == (wal.Mark{}) {
		return fmt.Sprintf("%v: %s was published, and is not there any more", ErrHistory, e.Known)
	}
	return fmt.Sprintf("%v: %s was the newest up to there, and now there is %s", ErrHistory, e.Known, e.Shown)
}

// Is makes errors.Is(err, ErrHistory) true.
func (e *HistoryError) Is(target error) bool { return target == ErrHistory }

// Repetition watches an origin repeat what was known before, and finds out whether it is the
// same. Known are all transactions up to a mark, and that there was none between the mark and
// a position end behind it. So the repetition has to show the very transaction of the mark
// before it gets behind it, and nothing between mark and end.
//
// It is used at the origin (the end of the own stream against what the slot shows) and at
// the peer (the checkpoint against what a new incarnation shows). No clock takes part.
// A zero mark proves nothing and covers nothing.
type Repetition struct {
	mark  wal.Mark
	end   wal.LSN
	shown bool
}

// NewRepetition begins to watch at from, the position that the repetition starts at. When
// that is behind the mark, there is nothing to show.
func NewRepetition(mark wal.Mark, end, from wal.LSN) *Repetition {
	return &Repetition{mark: mark, end: end, shown: from >= mark.EndLSN}
}

// Show takes the next transaction or part. Errors: *HistoryError.
func (r *Repetition) Show(tx *wal.Transaction) error {
	if r.mark == (wal.Mark{}) {
		return nil
	}
	m := wal.MarkOf(tx)
	switch {
	case tx.EndLSN == 0: // a part, but not the last: its commit ends behind CommitLSN
		if tx.CommitLSN < r.mark.EndLSN {
			return nil
		}
		if tx.CommitLSN < r.end || !r.shown {
			m.EndLSN = tx.CommitLSN
			return &HistoryError{Known: r.mark, Shown: m}
		}
	case m == r.mark:
		r.shown = true
	case m.EndLSN == r.mark.EndLSN,
		m.EndLSN > r.mark.EndLSN && (m.EndLSN <= r.end || !r.shown):
		return &HistoryError{Known: r.mark, Shown: m}
	}
	return nil
}

// Reach says that everything up to a position was shown. Errors: *HistoryError.
func (r *Repetition) Reach(lsn wal.LSN) error {
	if lsn >= r.mark.EndLSN && !r.shown {
		return &HistoryError{Known: r.mark}
	}
	return nil
}

// Proven reports whether the history is the known one as far as anybody can tell.
func (r *Repetition) Proven() bool { return r.shown }

// Knows reports whether a transaction or part was known before.
func (r *Repetition) Knows(tx *wal.Transaction) bool { return covers(r.mark, tx.CommitLSN, tx.EndLSN) }

// EndsBy reports whether everything that is known lies at or below a position.
func (r *Repetition) EndsBy(lsn wal.LSN) bool { return r.mark.EndLSN <= lsn }

// covers reports whether a transaction lies at or below a mark. end is its EndLSN, or 0 for a
// part of a giant one but the last; then commit, its CommitLSN, decides: a commit record that
// starts below a complete position ends there too.
func covers(m wal.Mark, commit, end wal.LSN) bool {
	if end != 0 {
		return end <= m.EndLSN
	}
	return commit != 0 && commit < m.EndLSN
}
