// Package sim runs the pure parts of pgwaltz (decoder, stamper, wire, checkpoint, conflict)
// between simulated databases, streams and links, under faults, in fake time.
//
//	local transactions -> database (rows, tombstones, WAL) -> pgoutput bytes -> decoder
//	-> replicator.Stamper -> wire.Encoder -> stream -> link -> wire.Parse, checkpoint.Check,
//	wire.Assembler -> conflict.Resolve -> database of the peer -> ack -> Confirm -> slot
//
// Bytes, stamps, positions and verdicts come from the product's own code; what has I/O there
// (the pipes, the applier's loop, the publisher, the subscription) is stated again here, on a
// database that is a map. A restatement says what the documents say; where the product's
// loop is told to do something else, Breakage has a switch, and a test demands that the
// simulation notices.
//
// One seed is one run. Each run lives in a testing/synctest bubble: clocks are time.Now, and
// every message, timer and step of a process is an event that its one goroutine sleeps for,
// in fake time. So the order of everything is a function of the seed; the trace hash proves
// it. A run has three phases: work under faults, faults off, quiet. Then the oracle looks:
//
//   - all regions hold the same rows with the same stamps
//   - every acknowledged write is an ancestor of a final row, was deleted, or lost on record
//   - every change has the stamp and the base of its first decoding at
//     every later one, after a restart, a rewind, the loss of a stream, and from every
//     position that was confirmed, with the tables at every later state
//   - each conflict is in the logs of both regions, under one id
//   - every peer counts exactly the transactions that the origin committed
//   - at every step: checkpoint.Must*, confirmed <= published, confirmed <= what every peer has
//     on disk (mode applied), bounds of the assembler
//
// PGWALTZ_SIM_SEEDS is the number of seeds, PGWALTZ_SIM_FROM the first one, PGWALTZ_SIM_SEED
// repeats one with its trace.
package sim
