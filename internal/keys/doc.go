// Package keys compares which keys the tables of two regions hold, for an operator who has to
// know what was deleted within a gap, or lost in a restore.
//
// A region is listed table by table: the keys of its rows, and what its side tables know of
// keys without a row (tombstones, parked changes). A list is sorted by the key text
// (wal.Relation.AppendKey), which is the same in every region for every type, bytewise, on
// disk where it is long; so two lists are merged in bounded memory. What the merge finds is
// looked at once more when both regions have applied all that the other had committed, because
// changes were on their way while the lists were made.
//
// A region that cannot be reached by its database brings its lists as a file (Write, Read).
package keys
