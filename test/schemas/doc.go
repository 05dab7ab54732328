// Command schemas runs the schemas of five programs that Debian packages between two regions:
// PowerDNS, Roundcube, Icinga 2 (IDO), Bacula and Zabbix, some 280 tables that nobody made for this
// program. It is not part of `make test`, because it fetches the packages.
//
//	go run ./test/schemas [-pgwaltz bin/pgwaltz] [-packages DIR] [-layout one,five] [-role least,owner,superuser]
//	                      [-identity full,keep] [-only pdns,zabbix] [-v] [-keep]
//
// The packages are fetched with apt-get and unpacked into a temporary folder (-packages names one
// that stays); nothing of theirs is part of this repository. In layout one all schemas share one
// database, each as a schema of its own; in layout five each has a database, and five pairs of
// sidecars share two servers. Role least gives the sidecar a role that owns nothing, and setup a
// superuser; with owner setup runs as the role that owns the tables, so that no superuser comes in
// at all.
//
// For each run:
//
//  1. The schema is loaded in both regions, and rows are written that the first copy has to merge.
//  2. `check` is asked, and every rule that it proposes is followed to the letter, until it finds
//     no error. Then setup, check, and both sidecars.
//  3. Rows of every table are inserted, updated, given another key and deleted: with the link up, with
//     the link cut so that each table has every kind of conflict, and in both regions at once.
//  4. Every table must hold the same rows in both regions, both audit logs the same events, and
//     nothing may be parked, quarantined or left behind.
//
// Rows are made from the catalog alone (types, keys, foreign keys, checks), see rows.go.
package main
