// Package slot owns the replication connection: it reads a logical replication slot through
// pgoutput, hands on decoded transactions, and reports the confirmed position.
//
// One goroutine reads the connection and writes every status message, so that the server
// hears from us whatever the back-pressure behind the reader is. What was decoded and not taken
// is bounded in bytes; while the bound is reached nothing is read, and the connection stays up.
// After an error the slot begins again at its confirmed position, so transactions are repeated
// and none is left out.
//
// Protocol: https://www.postgresql.org/docs/current/protocol-replication.html
package slot
