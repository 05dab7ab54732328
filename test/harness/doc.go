// Package harness starts two real regions on one machine and breaks them on purpose:
// PostgreSQL clusters, the pgwaltz binary as processes, a NATS server as a process of its
// own, and TCP proxies on every link between them.
//
//	cluster A <--A-pg--> sidecar A <--A-nats--> nats <--B-nats--> sidecar B <--B-pg--> cluster B
//	                               (or, embedded: sidecar A <---link--- sidecar B)
//
// Ownership: whoever calls a New or Start function owns the result and must Close it.
// Nothing is stopped that this process did not start. Child processes die with their
// parent (parent-death signal), so a panic leaves nothing behind but a temporary folder.
// No port is fixed: every listener gets a free one.
package harness
