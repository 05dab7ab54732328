// Package complete adds to decoded changes what the WAL leaves out: the generated columns of a
// key, the texts of keys that only the server can tell, and large values that an update did
// not touch where the WAL says nothing of the row before.
//
// It asks the region's own database. Keys are completed before a transaction is stamped, values
// behind that: what the tables say by now never decides about a stamp. Most tables need nothing
// of it; then it does nothing but look at the relation.
//
// Large values come as digests (wal.Digest): a receiver whose row has the same value needs no
// more, and any other asks for the row. Values are read whole only where the key of a row has
// changed, because nobody has a row under the new key.
//
// A row that is read back may have moved on since the change. The value, or its digest, is the
// newer one then, beside what the WAL says of the other columns; the change that set it follows
// in the WAL, or comes from the region that made it, with a higher stamp. If the row is gone, its
// delete follows, or a higher tombstone comes from another region, and the change is left out. If a
// tombstone below the change stands there, another region's change was written over the row before
// this one was known: then the change goes out without the values, and the self-merge asks the other
// regions for them.
package complete
