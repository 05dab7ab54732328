// Package copy reads whole tables for the initial copy and for every resync.
//
// A table is read in the order of its primary key, some rows at a time (a chunk), and each
// chunk goes through the region's stream as a packet of its own kind. The slot exists before
// the first row is read, so nothing falls between copy and stream; a chunk goes out when the
// WAL is published up to where its rows were read, and without the rows that were changed and
// published since (Watch). Rows are merged like any other change, so a copy may be repeated,
// interrupted and run in both directions at once. Behind the rows the table's tombstones follow.
//
// A resync brings a peer what it has lost in a restore. This region may be late, and read only later what
// that peer had published before it was restored, and what it then has alone. So each peer says, with every
// acknowledgement, which of its incarnations admitted a gap, and how much of this region's stream it
// had applied when it found that gap. When this region has applied that incarnation, it makes the copies of
// a resync once more that the peer did not have by then (CopyBack): nothing of the peer's lost history can
// come behind it.
//
// Which tables are to be copied, and how far each copy is, stands in pgwaltz.copy (Schema).
// Only this package writes that table.
package copy
