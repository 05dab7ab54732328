// Package native replicates with subscriptions of PostgreSQL: what is asked of both databases (Look), the
// decision what has to be run (Decide, a function of what was found), and what the server says of a running
// subscription in the words of status (Watch, Judge).
//
// The slot of a region is the same one in both modes. A subscription that takes it over from the stream begins
// where the stream was applied here: its progress is put there before it is enabled. The server sends a
// transaction when its commit record begins at or behind that position, and the checkpoint names the end of a
// commit record: so none is missing and none comes twice. It is not provable where the slot was confirmed beyond the
// checkpoint, or the checkpoint is of another WAL; Decide refuses that.
package native
