// Package tombstone keeps the graves: what a region knows of rows that were deleted, and
// of rows that live in a later generation than their first.
//
// A grave is a row of pgwaltz.tombstone, named by relation and key text (wal.AppendKey).
//
//	grave, no live row      the key is dead, with the grave's stamp
//	grave and a live row    the row's generation is grave.generation + 1
//	no grave, a live row    generation 0
//
// So a local insert over a grave needs no bookkeeping to count as a new generation: the
// grave is already there. Graves are written in the transaction of the rows (by the
// applier) or by the self-merge of this region's own published deletes.
//
// A grave carries the local log position at which it came into being. The publisher stamps
// a local change after it was committed, so it asks for the generation as of the change's
// own position (Grave.Before): a grave that is younger than the change does not count.
//
// Index is the part of it that every change asks: a map from key hash to generation and
// position, held in memory, bounded; when it is full, lookups go to the table.
package tombstone
