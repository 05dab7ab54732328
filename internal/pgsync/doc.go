// Package pgsync copies tables one way from one database into another, as a file with jobs says: what a cron line with
// pgsync does. docs/pgsync.md is what it promises.
//
// Rows are read by source/poll and written by sink/apply; this package has the file, the lock, the order of the work
// and what the destination's role may do. All that a run remembers is in the destination, so that it may be killed
// at any moment and go on from another host.
package pgsync
