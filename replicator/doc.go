// Package replicator is the two pipes and what they share.
//
// Outbound takes decoded transactions of this region, has them stamped (Stamper), framed
// (package framing) and published. Inbound gathers frames of one origin and hands them to an
// applier, one local transaction after the other. The self-merge is an inbound pipe over the
// region's own stream; it takes only what it needs (SelfMerge).
//
// LocalWAL holds what is known of the region's own WAL: up to where it is stamped, what is merged
// of it, and who waits for a position. The pipes meet there and nowhere else.
//
// Each pipe has one goroutine that owns it. After an error its owner runs it again from
// durable state, and nothing in memory is carried over but filters that are safe to lose.
package replicator
