// Package hold is the write pause of a cutover: it takes the rights to write away from the application's roles, ends
// their sessions, and gives back what was there.
//
// Everything that is taken is taken in one transaction, which also makes the function that gives it back
// (pgwaltz.cutover_back_out) and notes the cutover in pgwaltz.cutover. So whatever dies, either nothing was taken, or it is
// known how to give it back. The writes are paused as long as the function holds them. It gives back what it holds in one
// transaction as well; a second call ends the sessions that began in the pause, which are read-only as long as they live, and drops it.
// Behind its deadline the sidecar may call it; before, only the role that made it may.
//
// The function holds numbers of relations and roles, and no text that anybody else could have written, because it runs with
// the rights of its owner.
package hold
