// Package pglogical replicates with the extension pglogical 2.4: what is asked of both databases (Look), what
// has to be run (Decide, Prepare and DecideStream, functions of what was found), and what the extension says
// of a subscription in the words of status (Watch, Judge).
//
// Its output plugin reads the extension's own tables as they were when a change was made. So a slot cannot
// begin before the replication set was made: Prepare makes it while the stream still runs, and notes a position
// behind which no transaction is open that began before it. From there on the hand-over of native holds here,
// too: the subscription gets a copy of the stream's slot (pg_copy_logical_replication_slot, with another
// plugin), and its origin is put to where the stream was applied. pglogical has no way to make a subscription
// that does not make its slot itself: the row that says so (pglogical.local_sync_status) is set to ready in the
// transaction that makes the subscription, and before that no worker sees it.
package pglogical
