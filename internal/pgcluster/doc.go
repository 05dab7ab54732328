// Package pgcluster starts private PostgreSQL clusters: one folder, one server process, no
// trace in the system. The demo runs its regions on them, and tests their servers.
//
// A cluster listens on a unix socket in a folder that only its user may enter (no password
// there) and on a loopback port (password). As root, the server runs as user postgres.
package pgcluster
