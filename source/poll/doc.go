// Package poll reads tables of a database in which nothing is installed: whole tables
// by pages in the order of their keys, and what changed since an earlier reading.
//
// What changed is found in two ways. By xmin: row versions of transactions that the snapshot of the reading before
// did not see. It finds everything that was committed since, whatever its stamps say, and reads the whole table at the
// server. By the time column, where an index begins with it: rows from the newest time that was seen less an overlap.
// It costs what it finds, and misses what was stamped longer ago than the overlap; so the first way follows once in a while.
//
// Deletes leave nothing to read. They are found by looking up keys of the destination in the source (Vanished).
//
// Where a slot is to be had, its WAL says which keys were written (Keys), and the rows are read by these.
//
// The package owns pgwaltz.poll and pgwaltz.poll_stage in the destination. Reading again what was read before is harmless: whoever
// applies the rows finds them there already.
package poll
