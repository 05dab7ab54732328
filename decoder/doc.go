// Package decoder turns the messages of pgoutput (protocol version 1, messages on) into
// wal.Transactions. It is a state machine: bytes in, transactions out; it does no I/O, reads
// no clock and starts no goroutine.
//
//	               Begin
//	┌────────┐ ───────────────► ┌───────────────┐ ─┐ Insert Update Delete Truncate,
//	│  idle  │                  │     open      │  │ transactional Message:
//	└────────┘ ◄─────────────── └───────────────┘ ◄┘ kept; at MaxPart a part goes out
//	 ▲  ▲   ▲   Commit: the last    │ Origin that is not forwarded,
//	 │  │   │   (or only) part      │ or our apply marker
//	 │  │   │                       ▼
//	 │  │   └────────────────── ┌───────────────┐ ─┐
//	 │  │    Commit: a bare     │  suppressed   │  │ changes and messages: skipped
//	 │  │    Transaction with   └───────────────┘ ◄┘
//	 │  │    Origin and EndLSN
//	 │  └── Reset, from anywhere: a new connection
//	 │
//	Relation, Type: cached, in every state
//	non-transactional Message: handed to Config.OnMessage, in every state
//
// Everything else is fatal: a message type that is not listed (the streaming and two-phase
// messages of later protocol versions among them), a message in the wrong state, a relation
// nobody described, a tuple of the wrong width, a length that leaves the message. The error
// names the position and the type, and every later Feed repeats it until Reset: after one
// misread message nothing that follows can be trusted. Malformed input never panics.
//
// # Positions
//
// A transaction is confirmed and resumed by its EndLSN, never by the position of a message:
// Begin and the rows share positions with their neighbours. So that positions advance,
// a Transaction comes out for every commit, also for an empty one and for a suppressed one.
//
// # Parts
//
// A transaction that outgrows Config.MaxPart comes out in parts: Part counts from 0, More is
// set on all but the last, EndLSN stands only on the last, which may hold no change. The
// server sends a transaction after its commit, so that parts are never taken back. A
// transaction that turns out to be an echo after a part of it went out is an error: the apply
// marker must be its first statement, as the replication origin is by itself.
//
// # Values
//
// Values stay as the server sent them. NULL, unchanged TOAST, text and binary are distinct.
// An unchanged value is filled in here from the old tuple where that holds it: from a full
// old image (replica identity FULL), and for key columns from a key-only one. What is still
// Unchanged afterwards is not in the WAL. The columns of a key-only old tuple outside of the
// key are Null there, and mean nothing.
//
// # Memory
//
// Feed copies each row once, into slabs that neighbouring transactions share; the caller may
// reuse its buffer at once. A Transaction belongs to whoever got it, for as long as it likes
// and on any goroutine; it keeps its slabs alive, which costs at most a few megabytes of its
// neighbours, since large rows get slabs of their own. The decoder itself holds at most
// MaxPart bytes and one row, and the descriptions of the relations seen on the connection.
//
// # Reconnect and redelivery
//
// The server describes relations anew on each connection, and starts again with a whole
// transaction. Call Reset before the first message of a new connection: it drops the open
// transaction and the descriptions. Transactions whose commit was not confirmed come again,
// with the same EndLSN; the parts of one that was interrupted come again from part 0.
// Telling repeated ones apart is the caller's business.
package decoder
