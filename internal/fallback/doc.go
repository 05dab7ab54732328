// Package fallback holds what the modes besides the stream have in common: which one is in effect
// (table pgwaltz.mode), and the statements that a switch runs, printed and run. What the statements are is
// decided by native and pglogical. docs/fallback.md says what each mode promises.
//
// A switch changes the local database only, and that to pglogical the slots at the peer. Each of its statements may be run again: a switch that was cut
// off is finished by the next one. Until it is finished no sidecar of the region works (Row.Settled).
package fallback
