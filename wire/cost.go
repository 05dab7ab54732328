package wire

import "github.com/pgwaltz/pgwaltz/wal"

// MaxParsed bounds the memory, in bytes, that a packet may take beside its payload once it is
// parsed. A few hundred compressed bytes can announce millions of elements; each of them is
// counted before anything is allocated for it. The encoder keeps to the same limit.
const MaxParsed = 48 << 20

// fullAt is from where on an encoder calls its packet full, whatever its bytes: a single
// transaction, or part of one, still fits behind it.
const fullAt = 8 << 20

// What one element takes in memory, in bytes; a test holds them against the types.
const (
	costTransaction = 192
	costChange      = 192
	costValue       = 32
	costNotice      = 192
	costMessage     = 56
	costRelation    = 120
	costColumn      = 56
)

// spend counts memory, and fails when it is too much.
func (p *parser) spend(bytes int) bool {
	if p.cost += bytes; p.cost > MaxParsed && p.err == nil {
		p.err = ErrTooLarge
		p.i = len(p.b)
	}
	return p.err == nil
}

// cost is what a reader spends on the packet as it is.
func (p *builder) cost() int {
	return int(p.transactions)*costTransaction + int(p.changes)*costChange + int(p.values)*costValue + p.beside
}

// MaxRows is how many rows of so many columns fit into one packet, with room to spare.
func MaxRows(columns int) int { return fullAt / (costChange + columns*costValue) }

// costBeside is what notices and messages of a transaction take.
func costBeside(tx *wal.Transaction) int {
	return len(tx.Notices)*costNotice + len(tx.Messages)*costMessage
}
