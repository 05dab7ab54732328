package decoder

import (
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Who holds small transactions does not hold the large rows of their neighbours.
func TestLargeRowsAreFreed(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	feed(t, d, users('d'))
	small := func(lsn wal.LSN) *wal.Transaction {
		return feedOne(t, d, begin(1, lsn), insert(16400, "1", "x", nil), commit(lsn, lsn+1))
	}
	before := small(100)
	// Small rows before and behind the large one, in its transaction.
	large := feedOne(t, d, begin(2, 200), insert(16400, "1", "x", nil),
		insert(16400, "2", strings.Repeat("x", 1<<19), nil), insert(16400, "3", "x", nil), commit(200, 201))
	value := weak.Make(&large.Changes[1].New[1].Bytes[0])
	large = nil
	after := small(300)
	runtime.GC()
	runtime.GC()
	if value.Value() != nil {
		t.Error("the large row is still in memory")
	}
	runtime.KeepAlive(before)
	runtime.KeepAlive(after)
	runtime.KeepAlive(d)
}

// A small row costs no allocation of its own.
func TestAllocations(t *testing.T) {
	d := New(Config{})
	feed(t, d, users('f'), begin(7, 100))
	msg := row('U', 16400, []byte("O"), tup("1", "x", "y"), []byte("N"), tup("1", "z", true))
	if n := testing.AllocsPerRun(5000, func() {
		if _, err := d.Feed(1, msg); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each row, want less than one", n)
	}
}
