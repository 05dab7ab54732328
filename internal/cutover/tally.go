package cutover

import "time"

// Outcomes of a write.
type outcome byte

const (
	acknowledged outcome = iota + 1
	refused              // the server has said that it is not written
	unknown              // the session was lost: it may be written or not
)

// tally counts what a rehearsal writes. It has no clock of its own.
type tally struct {
	of     []outcome // of each number, from 1 on
	states map[string]int

	last    time.Time // when a write was acknowledged last
	gap     time.Duration
	outages int
	longest time.Duration
	failed  bool // since then
}

func newTally(now time.Time) *tally { return &tally{states: map[string]int{}, last: now} }

// next is the number of the next write.
func (t *tally) next() int64 { return int64(len(t.of)) + 1 }

// note takes the outcome of the next number. state is the server's code of an error, or a word.
func (t *tally) note(o outcome, state string, now time.Time) {
	t.of = append(t.of, o)
	if o == acknowledged {
		t.end(now)
		t.last = now
		return
	}
	t.miss(state)
}

// miss is a failure that used no number, such as one to connect.
func (t *tally) miss(state string) {
	t.states[state]++
	if !t.failed {
		t.failed = true
		t.outages++
	}
}

// end closes the time since the last write that was acknowledged.
func (t *tally) end(now time.Time) {
	since := now.Sub(t.last)
	t.gap = max(t.gap, since)
	if t.failed {
		t.longest = max(t.longest, since)
	}
	t.failed = false
}

func (t *tally) count(o outcome) (n int) {
	for _, one := range t.of {
		if one == o {
			n++
		}
	}
	return n
}

// held compares with how often each number is in a table: missing were acknowledged, ghosts were refused. rows is how many there are.
func (t *tally) held(there map[int64]int64) (missing, twice, ghosts []int64, rows int64) {
	for i, o := range t.of {
		n := int64(i) + 1
		switch {
		case o == acknowledged && there[n] == 0:
			missing = append(missing, n)
		case o == refused && there[n] > 0:
			ghosts = append(ghosts, n)
		}
		if there[n] > 1 {
			twice = append(twice, n)
		}
	}
	for n, times := range there {
		rows += times
		if n < 1 || n > int64(len(t.of)) {
			ghosts = append(ghosts, n)
		}
	}
	return missing, twice, ghosts, rows
}
