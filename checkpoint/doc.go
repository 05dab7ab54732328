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
//	Fit              same WAL and incarnation, number+1, chain fits     applies it
//	NextIncarnation  first frame of a newer incarnation that begins at  applies it; says so at Info,
//	                 or below what is applied (same WAL), or that       with the gap if it is a resync
//	                 admits a gap (Resync); where nothing was applied
//	                 before, of incarnation 1, or of one behind which
//	                 all tables are copied (Newcomers)
//	Duplicate        an older number, or an older incarnation           drops it, counts it
//	Gap              anything of this WAL that does not continue us,    applies nothing: reads again from
//	                 or another frame with our number                   the stream, then asks the origin to
//	                                                                    rewind, then stops this origin
//	Foreign          another origin or another WAL without Resync,      applies nothing: quarantine, stop
//	                 or numbers no writer makes                         this origin, name both epochs
//
// The cluster is part of the subject and of the frame header; the subscriber compares it
// before it asks. Next gives the checkpoint after a frame; a packet of several fragments
// moves the saved checkpoint only with its last one.
//
// A new incarnation may begin below the checkpoint: the origin has rewound. Its frames then
// repeat transactions, and Covers tells which: those at or below the checkpoint's Mark, the
// newest transaction that is applied, compared only inside the same WAL (system identifier and
// timeline), and in a Resync frame only where that says that the WAL is the same (SameWAL) and begins at
// or below what is applied. The checkpoint's EndLSN does not decrease while the
// origin repeats itself; continuity is proved by the chain.
//
// # Two histories
//
// A server that was restored from an older state uses positions again, for other transactions.
// Neither system identifier nor timeline tell (a file copy keeps both), and no clock does. What
// tells is the Mark: EndLSN, transaction id and commit time of the newest transaction known.
// Known is also that no transaction lies between the Mark and EndLSN. Whoever repeats that part
// of the WAL has to show exactly that (Repetition), or it is another history:
//
//	where      known from                 repeated by                  until it is shown
//	origin     the own stream's tail      what the slot sends          nothing is confirmed or self-merged
//	peer       its checkpoint             a new incarnation's frames   only what was shown is acknowledged (Seen)
//
// At the origin, what its own database has merged counts as shown: a restored one would have forgotten it.
// A repetition that begins behind the Mark shows nothing and need not: what lies below its
// start is not used. A zero Mark covers nothing.
//
// # At the origin
//
// Begin decides where publishing begins. The first line that fits counts:
//
//	situation                                                          step
//	no slot, or a lost one                                             Stop (resync --recreate-slot)
//	the database knows another WAL than the server has                 Stop
//	the stream's tail is of another WAL                                Stop
//	a peer, or a repetition, has shown another history before          Stop
//	the stream holds a later incarnation than the database knows       Stop: the database went back
//	a peer has applied a later incarnation, or beyond the WAL's end    Stop: the database went back
//	a peer has applied this or a later incarnation of another WAL      Stop
//	the WAL ends before the stream's tail                              Stop: the database went back
//	a peer that has applied nothing waits for an incarnation to begin  Renew (Newcomers)
//	the tail is inside a transaction, and the stream holds all that    Resume: a new incarnation from the last
//	any peer may miss before it                                        complete transaction on
//	the stream's machine failed before all of it was on disk           Renew
//	no tail, a damaged one, another one inside a transaction, one of   Renew: again from the slot; peers that
//	an older incarnation than the database knows; a rewind was granted it does not reach back to say so
//	the slot begins behind the tail, all peers have applied that       Renew
//	the slot begins behind the tail                                    Stop
//	everything else                                                    Continue
//
// A Renew begins at the slot, or behind Stored.Passed where that is further: up to there every peer had applied
// and confirmed what counted, and so had the self-merge. It is stored in the database while the slot is confirmed,
// because the server saves the slot itself now and then only, and a crash takes it back. That proves no less than the slot:
// the row stands in the WAL behind the position that it names, so a database that was restored has either
// both or none. It does not hold where a peer misses frames, is new, or says that it has applied less.
//
// Reading decides from where on the WAL is read then. What the slot holds for a peer is not decoded again
// where the stream goes on: what is in the stream, merged in this database, and of a known clock needs no
// stamps any more. That the database has merged it also proves that its WAL holds it (Situation.Merged).
//
// A Stop that says that the server was restored or replaced (Decision.History) is stored, and stays until an
// operator has asked for a resync: at the next look the WAL may have grown beyond what a peer has applied.
// Stop becomes Reopen (a new incarnation that admits the gap) when an operator has asked for a
// resync and there is a slot; also when the last incarnation was opened so and was only numbered
// too low to be noticed by a peer that knows a later one. Renew, and a Stop for another history, become
// Reopen when the last incarnation that admitted a gap is not in the stream and was never read here. A gap that a peer told of (Stored.Gap)
// stops nothing, and is admitted with the next resync.
//
// Judge says what an acknowledgement is worth: only one of the present incarnation, of a frame
// that was published and is still the one (Chains), and not beyond the WAL's end, Counts. One of a frame that was published before
// the process began is Distant, until the frame was found in the stream. Rewind.Decide answers a peer that
// misses frames: it gets them from the slot, or is told why not and what to type.
//
// Confirm chooses between what is durable in the stream and what the peers have applied:
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
