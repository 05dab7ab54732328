// Package preflight says what a database lacks and makes what can be made.
//
//	Check   reads, and returns findings with remedies. `pgwaltz check` prints them, `run`
//	        refuses to start on an error among them.
//	Plan    reads, and returns the statements of `pgwaltz setup`, each with the reason for it
//	        and whether it is done already. It runs none of them.
//	Apply   takes a lock, plans and runs what is not done.
//
// Setup never drops or narrows anything: running it again, or two of them at once, is safe.
// It refuses as a whole before the first statement when something stands in its way. The
// order matters: a table is marked for copying before it is published, and the slot comes
// last, because decoding needs the publication to be older than the slot.
package preflight
