// Package wire is the frame format between two regions: how committed transactions of one
// origin become messages of its stream, and how a peer reads them back.
//
//	transactions --Encoder.Add--> packet --Encoder.Cut--> 1..n frames (one message each)
//	message --Parse--> RawFrame --Assembler.Add--> Packet{Transactions}
//
// A packet is a payload: transactions (whole ones or parts of a giant one) and the
// relations they touch. A packet larger than a message is cut on bytes into fragments. Each
// frame carries its origin's epoch, its incarnation and number, the positions before and
// after it, a CRC-32C and a hash chain, so that a reader that keeps only (incarnation,
// number, EndLSN, chain) notices every missing, doubled, exchanged or altered frame.
// docs/wire-format.md describes every byte.
//
// The package does no I/O, reads no clock and starts no goroutine. An Encoder, an Assembler
// and a RelationCache belong to one goroutine each; everything else is stateless.
//
// Reading is safe on hostile input: no panic, and memory bounded by MaxPayload for a frame
// and by the Assembler's limit for a packet. Errors never hold row values.
package wire
