package batch

import "github.com/pgwaltz/pgwaltz/wal"

// Gathering decides which packets of an origin are applied in one transaction of the database.
// A part of a giant transaction is applied alone, and a packet that opens an incarnation begins
// a batch. The zero value takes one packet.
type Gathering struct {
	Limit   int // rows and notices from which on a batch is full
	Bytes   int // and bytes of their values; 0: as many as come
	rows    int
	bytes   int
	packets int
	alone   bool
}

// Take reports whether the next packet belongs to the batch, and counts it if so. opens: it
// is the first of an incarnation. The first packet of a batch always belongs to it.
func (g *Gathering) Take(txs []*wal.Transaction, opens bool) bool {
	parts := inParts(txs)
	if g.packets > 0 && (parts || opens || g.Full()) {
		return false
	}
	g.packets++
	g.alone = parts
	for _, tx := range txs {
		g.rows += len(tx.Changes) + len(tx.Notices)
		if g.Bytes > 0 && g.bytes < g.Bytes {
			g.bytes += sizeOf(tx)
		}
	}
	return true
}

// Full reports that no further packet belongs to the batch.
func (g *Gathering) Full() bool {
	return g.packets > 0 && (g.alone || g.rows >= g.Limit || g.Bytes > 0 && g.bytes >= g.Bytes)
}

// Busy reports that so many rows came at once that more are worth a moment's wait.
func (g *Gathering) Busy() bool { return g.rows >= busyRows }

// busyRows is from how many rows on more are worth waiting for.
const busyRows = 200

// sizeOf is how many bytes the values of a transaction take.
func sizeOf(tx *wal.Transaction) int {
	n := 0
	for i := range tx.Changes {
		n += tx.Changes[i].New.Size() + tx.Changes[i].Old.Size()
	}
	return n
}

// inParts reports whether a packet holds a part of a giant transaction.
func inParts(txs []*wal.Transaction) bool {
	for _, tx := range txs {
		if tx.More || tx.Part > 0 {
			return true
		}
	}
	return false
}
