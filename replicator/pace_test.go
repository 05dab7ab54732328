package replicator

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A long wait is given up while the reading of the WAL is young, and only then.
func TestPace(t *testing.T) {
	t.Parallel()
	const mb = wal.LSN(1 << 20)
	begin := time.Now()
	for _, c := range []struct {
		name       string
		young      time.Duration // age of the reading when the second question comes, a second behind the first
		from, done wal.LSN       // what was stamped when it was asked first, and then
		at         wal.LSN
		far        bool
	}{
		{"a gigabyte at ten megabytes a second", 5 * time.Second, 100 * mb, 110 * mb, 1100 * mb, true},
		{"a gigabyte, and nothing moves yet", 5 * time.Second, 100 * mb, 100 * mb, 1100 * mb, true},
		{"a gigabyte at half of it a second", 5 * time.Second, 100 * mb, 600 * mb, 1100 * mb, false},
		{"little, though nothing moves", 5 * time.Second, 100 * mb, 100 * mb, 105 * mb, false},
		{"a gigabyte, by a reading that has gone on for long", 40 * time.Second, 100 * mb, 110 * mb, 1100 * mb, false},
		{"behind the position", 5 * time.Second, 100 * mb, 1200 * mb, 1100 * mb, false},
		{"nothing is known yet", 5 * time.Second, 0, 0, 1100 * mb, false},
	} {
		p := pace{began: begin}
		now := begin.Add(c.young)
		if p.far(now.Add(-time.Second), c.from, c.at) {
			t.Errorf("%s: far at the first question, when nothing is known of how fast it goes", c.name)
		}
		if got := p.far(now, c.done, c.at); got != c.far {
			t.Errorf("%s: far is %t, want %t", c.name, got, c.far)
		}
	}
	if p := (pace{}); p.far(begin, mb, 1000*mb) {
		t.Error("far before the WAL is opened")
	}
	p := pace{began: begin}
	p.far(begin.Add(time.Second), 100*mb, 1000*mb)
	if p.far(begin.Add(2*time.Second), 50*mb, 1000*mb) { // it is read again from further back: watched anew
		t.Error("far by what an older reading had come to")
	}
}
