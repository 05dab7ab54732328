// Package complete adds to decoded changes what the log leaves out: the generated columns of a
// key, the texts of keys that only the server can tell, and large values that an update did
// not touch where the log says nothing of the row before.
//
// It stands between the decoder and the stamper and asks the region's own database.
// Most tables need nothing of it; then it does nothing but look at the relation.
//
// A row that is read back may have moved on since the change. Then the change carries the
// newer state, stamp and all: the writes in between follow in the log and find themselves
// there. If the row is gone, its delete follows in the log, and the change is left out.
package complete
