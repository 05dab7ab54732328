// Package demo is `pgwaltz demo`: two regions on one machine, both accepting writes, a
// sidecar for each, a link that is cut and healed, and the proof at the end that the
// regions agree and that every write is either in the result or in the audit log.
//
//	PostgreSQL eu ── pgwaltz run (eu) ◄── link (TCP proxy, cut for some seconds) ── pgwaltz run (us) ── PostgreSQL us
//	      ▲                                                                                                ▲
//	   workload, prober, checker: this process, which knows every write that it made (ledger)
//
// The proof has two parts. Equality: every table has the same ordered hash on both sides.
// Ancestor or audited: each write of a user row carries its own id and the id of the write
// that it replaced; at the end, each acknowledged id is the final row's, or an ancestor of
// it, or an ancestor of a loser that the audit log names. What is neither is lost.
//
// The clusters and sidecars are processes of their own below one temporary folder; all of
// it is gone when Run returns, unless it is told to keep the folder.
package demo
