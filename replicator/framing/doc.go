// Package framing decides what the outbound pipe does with stamped transactions: which it
// leaves out because the stream holds them, when it cuts a packet, how long it gathers, when
// it says a position although nothing happens. It is pure: times are arguments, frames go to
// a function. The pipe and the simulation run the same code.
package framing
