// Package tombstone keeps what a region knows of its keys beside the tables: which are dead,
// which rows live in a later generation than their first, and when rows without stamp columns
// were written.
//
// An entry is a row of pgwaltz.tombstone, named by relation and key text (wal.Relation.AppendKey):
//
//	dead entry, no row      the key is dead, with the entry's stamp
//	dead entry and a row    a local insert that is not merged yet; generation + 1
//	live entry and a row    the row's generation is the entry's + 1
//	live entry, no row      a local delete that is not merged yet
//	no entry and a row      generation 0
//	plain entry and a row   generation 0; this region wrote it last, at that time or later
//
// So a local insert over a tombstone needs no bookkeeping to count as a new generation. Entries
// are written in the transaction of the rows (by the applier) or by the self-merge of this
// region's own published changes.
//
// # Ledgers
//
// The relation that names an entry is the ledger of its table: what that was called first. A table that is renamed, or swaps its name
// with another one, takes its ledger along (Index.Ledger); no entry is moved.
//
// # Items
//
// The publisher stamps a local change after it was committed, and perhaps a second time, after
// a restart, a rewind, the loss of a stream. It must come out the same, whatever was learned
// since. So each entry has a position in the local WAL, and what it replaces is kept in
// pgwaltz.past, as an item (conflict.Item), until the slot is confirmed behind it. A change is
// stamped from the join of the items strictly below its own commit position. That is exact,
// because the items below a position never change once a change there was stamped:
//
//   - An item of this region's own change has that change's commit position. Until the
//     self-merge has written it, it is held in memory (Index.Note); after a restart the decoding
//     finds it again, because the slot is never confirmed beyond what is merged on disk.
//   - An item of an applied change of a row has a WAL position that was read while the
//     transaction held the row, so each local write of that row lies on the right side of it.
//     The index holds it before the commit (Index.Hold), and who stamps waits for the end of
//     the transaction.
//   - An own change of a table without stamp columns of whose key nothing is known needs no item:
//     its stamp is its commit time, and those rise in WAL order (Clock). What Clock begins a
//     decoding with is stored before the slot is confirmed.
//   - A tombstone where there is no row has no lock. Its position is the one up to which local
//     changes are stamped, taken before the look (Index.Blind): what was stamped before stays
//     below it, what comes behind it waits for the end of the transaction, which is on disk
//     then. A local transaction that was stamped but that the look could not see yet makes the
//     applier start again (Index.Unseen). While a new session has not stamped again what the one before had, there
//     is no such position (Index.Reading).
//
// An item is left out where every change is stamped the same without it. What counts is the highest generation, and
// which one was written last (conflict.Item.Over). So an item of an own change is left out only where the one just
// below it is of the same generation, the change that is stamped from it as well, and that has a
// time of its own, its commit time. That an older item is of the same generation is not enough: another region's lower row
// may have been put over that, and then this item says that it is there no more. Where several own changes are merged
// at once, that goes for each of them (WriteSQL, apply.OwnItems).
//
// Index is the memory of it: bounded, and safe for concurrent use.
package tombstone
