package tombstone_test

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// TestOwnChangesBeyondTheLimit: what is not held one by one is suspected, and who asks for it
// waits until it is merged, or at least recorded.
func TestOwnChangesBeyondTheLimit(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.LimitOwn(10)
	for i := range 1000 { // one transaction
		x.Note(users, fmt.Append(nil, i), tombstone.Place{Commit: 100}, conflict.Item{Next: 1})
	}
	x.Note(users, []byte("5"), tombstone.Place{Commit: 200}, conflict.Item{Next: 2})
	if it, known, waits := below(t, x, "3", 150); it.Next != 1 || !known || waits {
		t.Errorf("held one by one: %+v, %v, %v", it, known, waits)
	}
	for _, k := range []string{"500", "999"} {
		if _, _, waits := below(t, x, k, 150); !waits || !x.Stalled() || !x.May(users, []byte(k)) {
			t.Errorf("key %s: %v, stalled %v", k, waits, x.Stalled())
		}
	}
	if _, _, waits := below(t, x, "999", 100); waits {
		t.Error("a change waits for its own transaction")
	}
	if x.Waiting() != 100 {
		t.Errorf("waiting %s", x.Waiting())
	}
	x.Recorded(101)
	if _, _, waits := below(t, x, "500", 150); waits || x.Stalled() {
		t.Error("what is recorded has to be waited for")
	}
	x.Put(users, []byte("5"), conflict.Item{LSN: 100, Next: 1})
	x.Merged(150)
	if _, _, waits := below(t, x, "5", 250); !waits {
		t.Error("the second transaction is forgotten")
	}
	x.Put(users, []byte("5"), conflict.Item{LSN: 200, Next: 2})
	x.Merged(250)
	if it, known, waits := below(t, x, "5", 250); it.Next != 2 || !known || waits || x.Waiting() != 0 {
		t.Errorf("merged: %+v, %v, %v", it, known, waits)
	}
	// Below the limit again.
	x.Note(users, []byte("7"), tombstone.Place{Commit: 300}, conflict.Item{Next: 5})
	if it, known, waits := below(t, x, "7", 301); it.Next != 5 || !known || waits {
		t.Errorf("the limit is not left: %+v, %v, %v", it, known, waits)
	}
}

// TestManyTransactionsOverTheSameKeys: what is known of a key below a position is the same whether its changes are held one by one,
// looked up in the table, or noted again by another session; and however many transactions write the same keys, only
// keys and items count for the limit.
func TestManyTransactionsOverTheSameKeys(t *testing.T) {
	t.Parallel()
	const keys, commits = 20, 50
	x := tombstone.NewLimitedIndex(tombstone.Limits{Own: keys * commits, OwnKeys: keys})
	item := func(k, c int) conflict.Item { return conflict.Item{Next: uint32((c*7+k)%11 + c/10), Live: (c+k)%3 > 0} }
	want := func(k int, at wal.LSN) conflict.Item {
		out := conflict.Item{}
		for c := range commits {
			if it := item(k, c); wal.LSN(100+c) < at {
				it.LSN = wal.LSN(100 + c)
				out = out.Join(it)
			}
		}
		return out
	}
	key := func(k int) []byte { return fmt.Append(nil, k) }
	check := func(when string) {
		t.Helper()
		for k := range keys {
			for at := wal.LSN(99); at < 102+commits; at++ {
				if it, known, waits := below(t, x, string(key(k)), at); it != want(k, at) || !known || waits {
					t.Fatalf("%s: key %d below %d: %+v, %v, %v, want %+v", when, k, at, it, known, waits, want(k, at))
				}
			}
		}
	}
	for range 2 { // the WAL is decoded twice
		for c := range commits {
			for k := range keys {
				x.Note(users, key(k), tombstone.Place{Commit: wal.LSN(100 + c)}, item(k, c))
			}
		}
		check("noted")
		x.Reading()
	}
	for k := range keys {
		if !x.Later(users, key(k), tombstone.Place{Commit: 100 + commits - 2}) || x.Later(users, key(k), tombstone.Place{Commit: 100 + commits - 1}) || x.Perhaps(users, key(k), tombstone.Place{Commit: 100}) {
			t.Errorf("key %d: later changes are not known as they are", k)
		}
	}
	x.Note(users, []byte("another"), tombstone.Place{Commit: 200}, conflict.Item{Next: 1})
	if x.Later(users, []byte("another"), tombstone.Place{Commit: 100}) || !x.Perhaps(users, []byte("another"), tombstone.Place{Commit: 100}) {
		t.Error("there is room for more keys than the limit says")
	}
	x.Merged(100 + commits/2)
	for k := range keys {
		if it, _, _ := below(t, x, string(key(k)), 300); it != want(k, 300) {
			t.Errorf("half of it is merged: key %d: %+v, want %+v", k, it, want(k, 300))
		}
	}
	if x.Waiting() != 100+commits/2 {
		t.Errorf("waiting %s", x.Waiting())
	}
	x.Merged(300)
	if x.Waiting() != 0 || x.Noted(users, "1") {
		t.Error("all is merged, and something waits")
	}
}

// TestSuspectedRows: while a transaction writes a row the table is asked for its key; behind it
// the item is known.
func TestSuspectedRows(t *testing.T) {
	t.Parallel()
	for _, committed := range []bool{true, false} {
		x := tombstone.NewIndex(0)
		x.Put(users, []byte("k"), conflict.Item{LSN: 50, Next: 1})
		x.Suspect("b", users, "k", conflict.Item{LSN: 100, Next: 3})
		x.Suspect("b", users, "new", conflict.Item{LSN: 100, Next: 1})
		if _, known, waits := below(t, x, "k", 200); known || waits {
			t.Error("the table is not asked while the row is written")
		}
		x.Settle("b", committed)
		want := map[bool]uint32{true: 3, false: 1}[committed]
		if it, known, _ := below(t, x, "k", wal.LSN(200)); !known || it.Next != want {
			t.Errorf("committed %v: %+v, %v", committed, it, known)
		}
		if x.May(users, []byte("new")) != committed {
			t.Errorf("committed %v: the new key", committed)
		}
	}
}

// TestFreeChangesAreWaitedFor: an own change without an item has to be merged before a reader may
// take its row's time from its entry, but where the server keeps the time itself.
func TestFreeChangesAreWaitedFor(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.Merged(100)
	if x.Waiting() != 0 {
		t.Errorf("waiting for %s", x.Waiting())
	}
	x.Free(7, 150)
	if at := x.Waiting(); at == 0 || at > 150 {
		t.Errorf("waiting for %s", at)
	}
	if x.Any(users) || x.May(users, []byte("k")) {
		t.Error("the key is known")
	}
	x.Merged(151)
	if x.Waiting() != 0 {
		t.Errorf("merged, and waiting for %s", x.Waiting())
	}
	x.Track(1000)
	x.Free(999, 200) // before commit times were kept
	if x.Waiting() == 0 || x.Tracks(999) || !x.Tracks(1000) {
		t.Error("an older transaction counts as tracked")
	}
	x.Merged(201)
	x.Free(1001, 300)
	if x.Waiting() != 0 {
		t.Errorf("tracked, and waiting for %s", x.Waiting())
	}
}
