// Package copy reads whole tables for the initial copy and for every resync.
//
// A table is read in the order of its primary key, some rows at a time (a chunk), and each
// chunk goes through the region's stream as a packet of its own kind. The slot exists before
// the first row is read, so nothing falls between copy and stream; a chunk goes out when the
// WAL is published up to where its rows were read, and without the rows that were changed and
// published since (Watch). Rows are merged like any other change, so a copy may be repeated,
// interrupted and run in both directions at once. Behind the rows the table's tombstones follow.
//
// Which tables are to be copied, and how far each copy is, stands in pgwaltz.copy (Schema).
// Only this package writes that table.
package copy
