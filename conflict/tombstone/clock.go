package tombstone

import (
	"sort"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Clock makes the commit times of this region's transactions rise in the order of the WAL. In
// tables without stamp columns a change is stamped with that time, so a later change of a row
// is above an earlier one without anything known of the row, also when the server's clock
// was set back.
//
// The time of a transaction is its commit time, or just above the highest one in front of it,
// whichever is later. That is a function of the WAL, as long as a decoding begins with what was
// the highest time at its beginning: whoever confirms a position has to store At of it before
// that, and Begin is given what was stored. Not safe for concurrent use.
type Clock struct {
	begun bool
	high  wal.Micros // at the beginning
	from  wal.LSN
	marks []clockMark // in WAL order
}

// clockMark is one transaction: its commit position, and the highest time up to it.
type clockMark struct {
	commit wal.LSN
	at     wal.Micros
	next   wal.LSN // commit of the first transaction behind it that was dropped; 0: none was
}

// clockMarks bounds the transactions that are held one by one. Of more every second one is
// dropped, and between two that are left no position can be stored.
const clockMarks = 1 << 16

// Begin is called before the WAL is decoded from a position on: high is the highest time of
// the transactions below it, 0 when there was none.
func (c *Clock) Begin(from wal.LSN, high wal.Micros) {
	*c = Clock{begun: true, from: from, high: high, marks: c.marks[:0]}
}

// Time is the time of the transaction that was committed at a position and time. It is called in
// WAL order, and may be called again for a transaction.
func (c *Clock) Time(commit wal.LSN, t wal.Micros) wal.Micros {
	high := c.high
	n := len(c.marks)
	if n > 0 && c.marks[n-1].commit >= commit {
		n = sort.Search(n, func(i int) bool { return c.marks[i].commit >= commit })
		if c.marks[n].commit == commit {
			return c.marks[n].at
		}
	}
	if n > 0 {
		high = c.marks[n-1].at
	}
	if t <= high {
		t = high + 1
	}
	if n == len(c.marks) {
		if n == clockMarks {
			c.thin()
		}
		c.marks = append(c.marks, clockMark{commit: commit, at: t})
	}
	return t
}

// thin drops every second mark.
func (c *Clock) thin() {
	n := 0
	for i := 0; i+1 < len(c.marks); i += 2 {
		m := c.marks[i]
		if m.next == 0 {
			m.next = c.marks[i+1].commit
		}
		c.marks[n] = m
		n++
	}
	c.marks = c.marks[:n]
}

// At returns the highest position at or below the given one at which the clock is known, and
// the highest time of the transactions below that. The position is 0 before Begin, and where the
// given one lies in front of the beginning.
func (c *Clock) At(l wal.LSN) (wal.LSN, wal.Micros) {
	if !c.begun || l < c.from {
		return 0, 0
	}
	n := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].commit >= l })
	if n == 0 {
		return l, c.high
	}
	m := c.marks[n-1]
	if m.next != 0 {
		l = min(l, m.next)
	}
	return l, m.at
}

// Forget drops what lies below a position that was stored.
func (c *Clock) Forget(l wal.LSN) {
	n := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].commit >= l })
	if n == 0 || l < c.from {
		return
	}
	l, c.high = c.At(l)
	c.from = l
	c.marks = append(c.marks[:0], c.marks[n:]...)
}
