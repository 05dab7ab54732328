package batch

import (
	"errors"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func partOf(xid wal.XID, commit wal.LSN, n uint32, more bool) *wal.Transaction {
	return &wal.Transaction{XID: xid, CommitLSN: commit, Part: n, More: more}
}

func TestOnlyTheNextPartContinuesATransaction(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tx   *wal.Transaction
		want bool
	}{
		{"the next part", partOf(7, 100, 2, true), true},
		{"the last part", partOf(7, 100, 2, false), true},
		{"the first part again", partOf(7, 100, 0, true), false},
		{"the part that came last, again", partOf(7, 100, 1, true), false},
		{"a part left out", partOf(7, 100, 3, true), false},
		{"another transaction", partOf(8, 100, 2, true), false},
		{"another commit of the same id", partOf(7, 200, 2, true), false},
	} {
		var p Parts
		for n := range uint32(2) {
			if err := p.Take([]*wal.Transaction{partOf(7, 100, n, true)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.Continues(c.tx); got != c.want {
			t.Errorf("%s continues: %v", c.name, got)
		}
		if err := p.Take([]*wal.Transaction{c.tx}); (err == nil) != c.want || err != nil && !errors.Is(err, ErrParts) {
			t.Errorf("%s is taken: %v", c.name, err)
		}
		if want := !c.want || c.tx.More; p.Open() != want {
			t.Errorf("%s: open %v", c.name, p.Open())
		}
	}
}

func TestPartsBeginWithTheFirst(t *testing.T) {
	t.Parallel()
	var p Parts
	if err := p.Take([]*wal.Transaction{partOf(7, 100, 1, false)}); !errors.Is(err, ErrParts) {
		t.Errorf("part 1 is the first: %v", err)
	}
	if err := p.Take([]*wal.Transaction{partOf(7, 100, 0, true), partOf(8, 200, 0, false)}); !errors.Is(err, ErrParts) || p.Open() {
		t.Errorf("a transaction behind an open one in one batch: %v", err)
	}
	if err := p.Take([]*wal.Transaction{partOf(6, 90, 0, false), partOf(7, 100, 0, true)}); err != nil || !p.Open() {
		t.Errorf("whole transactions before a first part: %v", err)
	}
	p.Abandon()
	if err := p.Take([]*wal.Transaction{partOf(7, 100, 0, false)}); err != nil || p.Open() {
		t.Errorf("after it was abandoned: %v", err)
	}
}

// Reading begins between two parts of a transaction that is applied already, because the checkpoint
// moves there while the origin repeats itself. A part of another one without the part before it has
// no sense.
func TestPartsOfWhatIsApplied(t *testing.T) {
	t.Parallel()
	applied := func(tx *wal.Transaction) bool { return tx.CommitLSN < 200 }
	var p Parts
	var err error
	for _, c := range []struct {
		tx   *wal.Transaction
		open bool
		bad  bool
	}{
		{partOf(7, 100, 1, true), false, false}, // part 0 came before the checkpoint
		{partOf(7, 100, 2, false), false, false},
		{partOf(8, 300, 0, true), true, false},
		{partOf(8, 300, 1, true), true, false},
		{partOf(7, 100, 3, true), false, false}, // the origin begins anew
		{partOf(8, 300, 2, true), false, true},
		{partOf(8, 300, 0, true), true, false},
		{partOf(8, 300, 1, false), false, false},
	} {
		p, err = p.After([]*wal.Transaction{c.tx}, applied)
		if p.Open() != c.open || errors.Is(err, ErrParts) != c.bad {
			t.Errorf("part %d at %s: open %t, %v", c.tx.Part, c.tx.CommitLSN, p.Open(), err)
		}
	}
}
