// Package parked keeps the changes that a region cannot show: table pgwaltz.parked.
//
// A keyed table has at most one parked entry for each key, the highest in the table's order
// (conflict.Waiting says how two become one). A change of a table without a key is named by
// its origin, its commit position and its place in the transaction; such changes wait in the
// order of their ids.
//
// Rows are written in the transaction of the checkpoint, so a change is either applied or
// parked, never both and never neither. A row is deleted in the transaction that applies its
// change, or that applies a change of the same key at or above it.
//
// Index is the negative filter that the appliers ask first: most keys wait for nothing.
package parked
