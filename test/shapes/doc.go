// Command shapes draws tables that nobody thought of, lets all regions write them, alters them in one
// region after the other, and breaks things meanwhile. Then both must be equal.
//
//	go run ./test/shapes -seed 7 [-span 15s] [-tables 10] [-regions 2] [-faults] [-ddl] [-restorer] [-pgwaltz bin/pgwaltz] [-keep DIR]
//
// A seed draws the tables: key columns of types whose equal values have several spellings, other columns of
// many types, generated and identity columns, partitions, stamp columns that a trigger raises, that the
// application sets, one of the two, or none, and the replica identity. Writers insert, update, delete and
// move rows to other keys, several in a transaction, with savepoints that are rolled back; they read the
// catalog before each transaction, so that they go on when the table is altered. What the
// database refuses they give up.
//
// At the end: all alterations are made in all regions, links and processes are whole, every table is
// touched once in each region, and
//
//  1. all regions come into step, and all tables are equal, by text and by stamps;
//  2. each conflict is in the logs of two regions;
//  3. nothing is parked or in quarantine, and all regions are replicating;
//  4. the same holds after every key was written in each region while the link was cut.
//
// The same seed draws the same tables, transactions and alterations; how they meet is up to the machine.
package main
