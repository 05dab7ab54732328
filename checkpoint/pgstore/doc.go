// Package pgstore keeps checkpoints in the table pgwaltz.checkpoint of the database that the
// rows are applied to, in the transaction that applies them: a crash leaves both or neither.
//
// Saving is also the fence between two appliers: the UPDATE names the frame that the caller
// believes to be the last one. Whoever is behind changes no row, gets ErrFenced, and must
// roll back.
package pgstore
