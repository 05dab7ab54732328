// Command chaos lets two regions write, breaks everything around them for a while, and then
// asks an oracle of its own whether anything was lost. It runs real PostgreSQL clusters,
// the real binary and, if asked, a real NATS cluster of three nodes, or a third region.
//
//	make chaos SEED=7 DURATION=10m
//	go run ./test/chaos -seed 7 -duration 60s -keep /tmp/chaos
//	go run ./test/chaos -seed 7 -duration 60s -tables '^(kv|plain)$' -faults 'sidecar|link'
//	make chaos SEED=7 DURATION=10m CHAOS_FLAGS='-clock -topology cluster -keep /tmp/chaos'
//
// PGWALTZ_BIN names a ready binary, PGWALTZ_PG_BIN a PostgreSQL. Faults, their targets and
// lengths, what the writers draw, and which servers keep commit times come from the seed; what
// meets what is decided by the machine, so the same seed gives the same plan and not the same
// run. The clock of a server is set off by libfaketime where that is installed, the clock of a
// sidecar by a binary that is built for it (-clock).
//
// The run has four phases:
//
//  1. Writers of both regions write for -duration while faults come (fault*.go).
//  2. Faults end, everything is started and healed, secondary keys that clash are released,
//     and both regions get time to come into step (-drain).
//  3. The oracle asks (check*.go). Each question prints one line.
//  4. The probe: the link is cut once more, every key is written in both regions, the link
//     is healed, and the oracle asks again. That shows what equal tables can hide: entries
//     of keys (generations, tombstones) that differ.
//
// The oracle knows only what the writers noted (journal.go): every write has an id of its
// own (column wid), the id that it overwrote, and how it ended. A write that ended well
// must be in the final rows, or something that was built on it must be there or have been
// deleted, or one of these must be in the audit logs of both regions as a loser. A write
// that was refused must be nowhere.
//
// Exit code 0: all passed; 1: something failed; 2: the run could not be made. With -keep,
// a failed run leaves logs, configuration, dumps of both databases and the journal there.
package main
