// Package pg connects to PostgreSQL and reads its catalog.
//
// Every connection has the settings pinned that shape the text of a value, in the start-up
// packet, so that the same row reads the same in every region and in the WAL. The
// search path is empty: statements name schemas, and type names come out qualified.
//
// Statements here are written for PostgreSQL 14 to 18 and for a role without superuser.
package pg
