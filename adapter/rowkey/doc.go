// Package rowkey reads from the catalog what identifies the rows of a table, and asks the
// server for those keys whose text only it can tell.
//
// A row is identified by the primary key, or with replica identity USING INDEX by that index.
// Two spellings of one value (1.5 and 1.50, Bob and BOB under citext) are one key exactly when
// the index says so; so each column has a form (wal.Form) that follows the operator class and
// the collation of its index column:
//
//	plain    bool, integers, text under a deterministic collation, uuid, dates, bytea, enums,
//	         network addresses, ltree, hstore, isn, and arrays, ranges, composites of these
//	numeric  numeric
//	float    float4, float8
//	padded   char(n)
//	lower    citext: lower() under the database's default collation
//	hash     everything else that can be hashed: collations that are not deterministic,
//	         interval, jsonb, arrays of numeric, types of the application. Two 64 bit hashes of
//	         the hash operator class that has the same equality; equal values have equal
//	         hashes by its definition. Where such a hash is known to leave things out, what
//	         equal values have in common of their text goes with it
//	unknown  the rest; such a table is refused by name
//
// Domains have the form of their base type.
package rowkey
