package tombstone_test

import (
	"fmt"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

func below(t *testing.T, x *tombstone.Index, key string, at wal.LSN) (it conflict.Item, known, waits bool) {
	t.Helper()
	items := make([]conflict.Item, 1)
	missing, wait := x.Below(at, []tombstone.Ref{{Relation: users, Key: key}}, items)
	return items[0], len(missing) == 0, wait != nil
}

func TestIndexAnswersByPosition(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	if x.Any(users) || x.May(users, []byte("k")) {
		t.Error("something is known of nothing")
	}
	x.Put(users, []byte("k"), conflict.Item{LSN: 100, Next: 1})
	if it, known, _ := below(t, x, "k", 101); it.Next != 1 || !known {
		t.Errorf("behind it: %+v, %v", it, known)
	}
	if it, known, _ := below(t, x, "k", 100); it.Next != 0 || !known {
		t.Errorf("at it: %+v, %v", it, known)
	}
	x.Put(users, []byte("k"), conflict.Item{LSN: 200, Next: 2})
	if _, known, _ := below(t, x, "k", 150); known {
		t.Error("between two items the table has to be asked")
	}
	if it, known, _ := below(t, x, "k", 201); it.Next != 2 || !known {
		t.Errorf("behind both: %+v, %v", it, known)
	}
}

func TestOwnChangesAreKnownUntilTheyAreMerged(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	for i := range uint32(3) {
		x.Note(users, []byte("k"), tombstone.Place{Commit: wal.LSN(100 + 100*i)}, conflict.Item{Next: i + 1})
		x.Note(users, []byte("k"), tombstone.Place{Commit: wal.LSN(100 + 100*i)}, conflict.Item{Next: i + 1}) // decoded again
	}
	for at, want := range map[wal.LSN]uint32{100: 0, 150: 1, 200: 1, 250: 2, 350: 3} {
		if it, known, _ := below(t, x, "k", at); it.Next != want || !known {
			t.Errorf("at %s: %+v, %v", at, it, known)
		}
	}
	if !x.Later(users, []byte("k"), tombstone.Place{Commit: 200}) || x.Later(users, []byte("k"), tombstone.Place{Commit: 300}) || x.Waiting() != 100 {
		t.Error("which change is the last")
	}
	x.Put(users, []byte("k"), conflict.Item{LSN: 100, Next: 1})
	x.Put(users, []byte("k"), conflict.Item{LSN: 200, Next: 2})
	x.Merged(250)
	if it, known, _ := below(t, x, "k", 350); it.Next != 3 || !known || x.Waiting() != 300 {
		t.Errorf("%+v, %v, waiting %s", it, known, x.Waiting())
	}
	x.Put(users, []byte("k"), conflict.Item{LSN: 300, Next: 3})
	x.Merged(350)
	if it, known, _ := below(t, x, "k", 350); it.Next != 3 || !known || x.Waiting() != 0 || !x.May(users, []byte("k")) {
		t.Errorf("%+v, %v, waiting %s", it, known, x.Waiting())
	}
}

// TestBlindTombstone: what was stamped before a look stays below its tombstone, what comes
// later waits for the end.
func TestBlindTombstone(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.Start(1000)
	if _, ok := x.Blind("b", 77, users, []string{"k"}); ok {
		t.Fatal("before the WAL is read up to where an earlier process was")
	}
	x.Open(7, 990)
	x.Stamped(1040)
	at, ok := x.Blind("b", 77, users, []string{"k", "seen"})
	if !ok || at != 1039 {
		t.Fatalf("position %s, %v", at, ok)
	}
	if _, _, waits := below(t, x, "k", 1030); waits {
		t.Error("a change below waits")
	}
	if _, _, waits := below(t, x, "k", 1050); !waits {
		t.Error("a change above does not wait")
	}
	x.Seen("b", users, "seen")
	if _, _, waits := below(t, x, "seen", 1050); waits {
		t.Error("a key whose row is there waits")
	}
	x.Hold("b", users, "k", conflict.Item{LSN: at, Next: 4})
	x.Settle("b", true)
	if it, known, waits := below(t, x, "k", 1050); it.Next != 4 || !known || waits {
		t.Errorf("%+v %v %v", it, known, waits)
	}
	// A transaction that is being stamped now may have asked before: the tombstone is above it.
	x.Open(8, 2000)
	if at, _ := x.Blind("b", 77, users, []string{"j"}); at != 2001 {
		t.Errorf("position %s beside a transaction that is being stamped", at)
	}
	x.Settle("b", false)
	if x.May(users, []byte("j")) {
		t.Error("a transaction that was rolled back left something")
	}
}

// TestBlindTombstoneOfANewSession: a session ends within what the decoder gave out at once. Some of that is stamped, and
// published, and gets the same stamps again: no tombstone comes below it meanwhile.
func TestBlindTombstoneOfANewSession(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.Open(7, 990)
	x.Stamped(1000)
	x.Open(8, 1500)
	x.Open(9, 2000)
	x.Reading()
	x.Open(7, 990) // read again
	x.Stamped(1000)
	if at, ok := x.Blind("b", 77, users, []string{"k"}); ok {
		t.Errorf("position %s in front of transactions that were stamped", at)
	}
	if x.Caught() {
		t.Error("everything counts as stamped again")
	}
	x.Open(8, 1500)
	x.Open(9, 2000)
	x.Stamped(2010)
	if at, ok := x.Blind("b", 77, users, []string{"k"}); !ok || at != 2009 {
		t.Errorf("position %s, %v when they are stamped again", at, ok)
	}
}

func TestStampedTransactionsThatAreNotVisible(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.Open(7, 100)
	if !x.Unseen([]uint32{5, 7}) || x.Unseen([]uint32{5}) {
		t.Error("which transactions a snapshot does not show")
	}
	x.Visible([]uint32{5})
	if x.Unseen([]uint32{7}) {
		t.Error("a transaction that became visible counts still")
	}
}

// TestLostCommit: nobody knows whether a transaction was committed; who stamps waits until the
// server has ended it, and asks the table then.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(0)
	x.Stamped(101)
	x.Blind("b", 77, users, []string{"k"})
	x.Hold("b", users, "k", conflict.Item{LSN: 100, Next: 1})
	x.Lose("b", 77)
	if _, _, waits := below(t, x, "k", 200); !waits || x.Lost("b") != 77 {
		t.Error("a change does not wait for a lost transaction")
	}
	x.Found("b")
	if _, known, waits := below(t, x, "k", 200); known || waits {
		t.Error("the table is not asked")
	}
}

// TestIndexBeyondItsLimit: what it cannot hold it still suspects, and does not take for
// unknown.
func TestIndexBeyondItsLimit(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(1000)
	for i := range 4000 {
		x.Put(users, fmt.Append(nil, i), conflict.Item{LSN: 100, Next: 1})
	}
	sure := 0
	for i := range 4000 {
		if !x.May(users, fmt.Append(nil, i)) {
			t.Fatalf("key %d is taken for unknown", i)
		}
		if it, known, _ := below(t, x, fmt.Sprint(i), 200); known {
			sure++
			if it.Next != 1 {
				t.Errorf("key %d: %+v", i, it)
			}
		}
	}
	if sure != 1000 || !x.Full() || x.Len() != 1000 {
		t.Errorf("%d known, %d held", sure, x.Len())
	}
	wrong := 0
	for i := range 10000 {
		if x.May(users, fmt.Append(nil, "other", i)) {
			wrong++
		}
	}
	if wrong > 500 {
		t.Errorf("%d of 10000 other keys are suspected", wrong)
	}
}

func TestWhatARowMeets(t *testing.T) {
	t.Parallel()
	x, rel := tombstone.NewIndex(0), wal.RelationName{Schema: "public", Name: "t"}
	x.Stamped(100)
	ask := func(when string, want tombstone.Meeting) {
		t.Helper()
		if got := x.Meets("a", rel, "k"); got != want {
			t.Errorf("%s: %d, want %d", when, got, want)
		}
	}
	ask("nothing is known", tombstone.Alone)
	x.Blind("c", 7, rel, []string{"k"})
	ask("another looks", tombstone.MeetsOpen)
	x.Seen("c", rel, "k")
	ask("the other has seen a row", tombstone.Alone)
	x.Blind("c", 7, rel, []string{"k"})
	x.Hold("c", rel, "k", conflict.Item{LSN: 99, Next: 1})
	ask("another has written", tombstone.MeetsOpen)
	x.Settle("c", true)
	ask("another has committed", tombstone.MeetsEntry)
	x.Suspect("a", rel, "k", conflict.Item{LSN: 120, Next: 1})
	ask("its own entry goes with it", tombstone.Alone)
	x.Settle("a", false)
	x.Note(rel, []byte("k"), tombstone.Place{Commit: 130}, conflict.Item{Next: 2})
	ask("an own change came", tombstone.MeetsOwn)
}

// TestCrowdedFilter: a filter that is full of more keys than it was made for says so, and the next
// load makes one that is large enough.
func TestCrowdedFilter(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(100)
	n := 0
	for ; !x.Crowded(); n++ {
		if n > 10_000 {
			t.Fatal("a filter for some hundred keys takes ten thousand")
		}
		x.Put(users, fmt.Append(nil, n), conflict.Item{LSN: 1, Next: 1})
	}
	if n < 300 || !x.Full() {
		t.Errorf("crowded after %d keys", n)
	}
}

// TestOwnEntryBeyondTheLimit: an applier does not take the entry that it has just written for
// somebody else's, also when there are more keys than the index holds.
func TestOwnEntryBeyondTheLimit(t *testing.T) {
	t.Parallel()
	x := tombstone.NewIndex(10)
	for i := range 50 {
		x.Put(users, fmt.Append(nil, i), conflict.Item{LSN: 1, Next: 1})
	}
	x.Suspect("a", users, "new", conflict.Item{LSN: 120, Next: 1})
	if got := x.Meets("a", users, "new"); got != tombstone.Alone {
		t.Errorf("its own entry: %d", got)
	}
	if got := x.Meets("b", users, "new"); got != tombstone.MeetsOpen {
		t.Errorf("the other's open one: %d", got)
	}
	x.Settle("a", true)
	if got := x.Meets("b", users, "new"); got != tombstone.MeetsEntry {
		t.Errorf("the other's: %d", got)
	}
}
