// Package checkpoint does the bookkeeping of positions, and nothing else: which frame is due,
// which position is safe to confirm, what must never happen. It does no I/O, reads no clock
// and starts no goroutine; its values belong to one goroutine each.
//
// # At the receiver
//
// A Checkpoint says how far one origin is applied. It is saved in the transaction of the
// rows that it covers (package pgstore). Check holds the next frame against it:
//
//	verdict          when                                              the subscriber
//	Fit              same log and incarnation, number+1, chain fits     applies it
//	NextIncarnation  first frame of a newer incarnation that begins at  applies it; says so at Info,
//	                 or below what is applied (same log), or that       with the gap if it is a resync
//	                 admits a gap (Resync), or the first frame ever
//	Duplicate        an older number, or an older incarnation           drops it, counts it
//	Gap              anything of this log that does not continue us     applies nothing: reads again from
//	                                                                    the stream, then asks the origin to
//	                                                                    rewind, then stops this origin
//	Foreign          another origin or another log without Resync,      applies nothing: quarantine, stop
//	                 or numbers no writer makes                         this origin, name both epochs
//
// The cluster is part of the subject and of the frame header; the subscriber compares it
// before it asks. Next gives the checkpoint after a frame; a packet of several fragments
// moves the saved checkpoint only with its last one.
//
// A new incarnation may begin below the checkpoint: the origin has rewound. Its frames then
// repeat transactions, and Covers tells which: those whose EndLSN is at or below the
// checkpoint's, compared only inside the same log (system identifier and timeline), and never
// in a Resync frame, whose positions may have been used before by another history (a restored
// disk). The merge is idempotent, so applying twice costs time only. The checkpoint's EndLSN
// does not decrease while the origin repeats itself; continuity is proved by the chain.
//
// # At the origin
//
// A Tracker turns acknowledgements in any order into one safe position. Confirm chooses
// between that (durable in the stream) and what the peers have applied:
//
//	mode       confirms                                                  risks
//	applied    what every peer has applied                               retained WAL grows without bound
//	published  what is durable in the stream                             loss if the stream's store is lost
//	adaptive   as applied while retained WAL <= HoldMax; above it, the   bytes between the slowest peer and
//	           durable position less HoldMargin, never below applied     the confirmed position
//
// # Always on
//
// The functions Must* of invariant.go are called by the product at every step, not by tests
// only. An *InvariantError means a bug or a damaged database: stop, say so, touch nothing.
package checkpoint
