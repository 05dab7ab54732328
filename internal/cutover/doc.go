// Package cutover moves an application from one region to another one: it pauses the writes at the source (package hold), waits until
// all of them are at the destination, and puts the destination's sequences ahead. The stream, native subscriptions or pglogical may be
// underneath. docs/cutover.md is a walk.
//
// Both servers are asked who they are with each session (End), and that is held against what the cutover has noted when it began.
// What a command changes is noted before, in pgwaltz.cutover at the source and pgwaltz.cutover_sequence at the
// destination, so that a command which was cut off is run again, and Abort puts back what was there.
package cutover
