// Package wal holds the nouns that every other room shares: WAL positions, relations,
// tuples, row keys, stamps, changes and transactions.
//
// Nothing here does I/O, reads a clock or starts a goroutine. Values travel as pgoutput
// sent them (text or binary); nothing is decoded into Go types except what decides a
// merge: the key, the version and the time of a row.
//
// Memory: a Value's bytes belong to whoever made the Transaction. The decoder and the
// frame parser put the values of one transaction part into one slab; a holder of a
// Transaction keeps its slab alive and must not modify it.
package wal
