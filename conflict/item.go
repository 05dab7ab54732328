package conflict

import "github.com/pgwaltz/pgwaltz/wal"

// Item says what a key has been through at one position of this region's WAL, as far as local
// changes behind it are stamped from it. What is known of a key at a position is the join of
// its items strictly below that position: the order in which they become known, and how often,
// plays no part. A key without items has the zero Item.
//
// The join only rises. So the stamps that a region gives to one key never fall, even where
// another region's older row was written over a newer one of its own that it did not know yet.
type Item struct {
	LSN wal.LSN
	// Next is the generation of the row that lives from here on, or that an insert would get.
	Next uint32
	// At is the time of the entry in a table without stamp columns; without meaning in others.
	At wal.Micros
}

// Join is what two items say together; its position is the higher one.
func (i Item) Join(o Item) Item {
	return Item{LSN: max(i.LSN, o.LSN), Next: max(i.Next, o.Next), At: max(i.At, o.At)}
}

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
