package conflict

import "github.com/pgwaltz/pgwaltz/wal"

// Item says what a key has been through at one position of this region's WAL, as far as local
// changes behind it are stamped from it. What is known of a key at a position is the join of
// its items strictly below that position: the order in which they become known, and how often,
// plays no part. A key without items has the zero Item.
//
// The join only rises, and so do the stamps that a region gives to one key: also where another region's
// older row, or delete, was written over a newer one of its own that it did not know yet. What was
// written last is below the join then, and a change of it goes above everything (Over).
type Item struct {
	LSN wal.LSN
	// Next is the generation of the row that lives from here on, or that an insert over a tombstone
	// would get.
	Next uint32
	// Live: a row of the generation Next lived. An insert, which finds none, begins another life.
	Live bool
	// Under is by how many generations the item at LSN is below Next; 0 but for joins.
	Under uint32
	// At is the time of the entry in a table without stamp columns; without meaning in others.
	At wal.Micros
}

// Join is what two items say together; its position is the higher one.
func (i Item) Join(o Item) Item {
	if i.LSN < o.LSN {
		i, o = o, i
	}
	last := i.Next - i.Under
	if i.LSN == o.LSN {
		last = max(last, o.Next-o.Under)
	}
	out := Item{LSN: i.LSN, Next: max(i.Next, o.Next), At: max(i.At, o.At)}
	out.Live = i.Live && i.Next == out.Next || o.Live && o.Next == out.Next
	out.Under = out.Next - last
	return out
}

// Born is the generation of a row that is inserted now: above every row that lived, and over every
// tombstone. Of the first generation items say nothing, because the rows do.
func (i Item) Born() uint32 {
	if i.Live && i.Next > 0 {
		return nextGeneration(i.Next)
	}
	return i.Next
}

// Over is the generation of the row that an update or a delete overwrites, and the one that the
// change gets: the same, unless another row that lived, or was deleted, before is above it.
func (i Item) Over() (row, change uint32) {
	if i.Under > 0 {
		return i.Next - i.Under, i.Born()
	}
	return i.Next, i.Next
}

// Repeats reports whether i, an item of an own change, says nothing that o, the item of the own change before it, does not
// say: generations come out the same without it, whatever other regions wrote in between. Something lower that
// was written over a live row would have put i into a later generation. Over a tombstone it would not, so i
// may be what says that it is not the last word any more (Under). Times are left out here: what is stamped from
// i has to have a time of its own, its commit time.
func (i Item) Repeats(o Item) bool { return i.Next == o.Next && i.Live == o.Live }

// NextGeneration is the generation of the row over an entry, or that an insert over it gets:
// its own when it lives, the one after it when it is a tombstone.
func NextGeneration(s wal.Stamp, alive bool) uint32 {
	if alive {
		return s.Generation
	}
	return nextGeneration(s.Generation)
}

// Time is the time of a change of a table without stamp columns: the commit time, or just
// above the entry that it overwrites, whichever is later. again counts the changes of such
// tables before it in the same transaction, when one of them was of the same key, and is 0
// otherwise; so the times of one key rise within a transaction too.
func (i Item) Time(commit wal.Micros, again int) wal.Micros {
	at := commit
	if at <= i.At {
		at = addMicros(i.At, 1)
	}
	return addMicros(at, wal.Micros(again))
}

// Trim joins the items at or below a position, in front of which nothing can be decoded any
// more: for every change behind it they say the same together.
func Trim(items []Item, horizon wal.LSN) []Item {
	out := make([]Item, 0, len(items))
	low := Item{}
	for _, it := range items {
		if it.LSN <= horizon {
			low = low.Join(it)
		} else {
			out = append(out, it)
		}
	}
	if low != (Item{}) {
		out = append(out, low)
	}
	return out
}
