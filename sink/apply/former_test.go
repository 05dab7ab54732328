package apply

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// An own change of a table whose name another one has by now never changes a row of that one; where that was made behind the change, it
// is recorded as what was there before.
func TestDecideFormer(t *testing.T) {
	t.Parallel()
	at := func(m wal.Micros) wal.Stamp { return wal.Stamp{Version: wal.NullVersion, UpdatedAt: m} }
	row := func(m wal.Micros) conflict.Side { return conflict.Side{Known: true, Alive: true, Stamp: at(m)} }
	for _, x := range []struct {
		name       string
		op         wal.Op
		row, later bool
		local      conflict.Side
		want       conflict.Verdict
	}{
		{"a row of a table as old", wal.Update, true, false, row(1), conflict.Keep},
		{"a delete, and a row of a table as old", wal.Delete, true, false, row(1), conflict.Keep},
		{"what the copy has made of the row", wal.Update, true, true, row(1), conflict.Same},
		{"another region has written it since", wal.Update, true, true, row(9), conflict.Keep},
		{"the copy has left the row out", wal.Update, false, true, conflict.Side{}, conflict.Keep},
		{"the copy was made of a row that was deleted since", wal.Delete, true, true, row(1), conflict.Same},
		{"the row was deleted before the copy", wal.Delete, false, true, conflict.Side{}, conflict.Same},
	} {
		e := conflict.Event{Op: x.op, Stamp: at(5)}
		if got := decideFormer(conflict.Policy{}, x.op, x.row, x.later, e, x.local); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}
