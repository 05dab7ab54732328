package batch

import (
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrParts: a part came that does not follow the one before. Whoever applies starts again from
// the checkpoint, where the transaction begins.
var ErrParts = errors.New("a part of a transaction came without the one before it")

// Parts knows which part must come next while a transaction in parts is open. Its zero value is
// the state of a checkpoint: nothing is open.
type Parts struct {
	open   bool
	xid    wal.XID
	commit wal.LSN
	due    uint32
}

// Open reports whether a transaction waits for its next part.
func (p *Parts) Open() bool { return p.open }

// String names the part that must come next.
func (p *Parts) String() string {
	if !p.open {
		return "no part"
	}
	return fmt.Sprintf("part %d of transaction %d at %s", p.due, p.xid, p.commit)
}

// Continues reports whether a transaction is the next part of the open one. Where it is not,
// its origin has begun anew, and the open one has to be abandoned: half of it may not become
// visible, and none of it twice.
func (p *Parts) Continues(tx *wal.Transaction) bool {
	return p.open && tx.XID == p.xid && tx.CommitLSN == p.commit && tx.Part == p.due
}

// Abandon forgets the open transaction, which was rolled back.
func (p *Parts) Abandon() { *p = Parts{} }

// After returns which part is due behind the transactions of a packet, for whoever reads. Covered ones are
// applied already and are skipped: reading may begin between two parts of such a one, because a
// checkpoint moves there, too. Errors: ErrParts.
func (p Parts) After(txs []*wal.Transaction, covered func(*wal.Transaction) bool) (Parts, error) {
	left := make([]*wal.Transaction, 0, len(txs))
	for _, tx := range txs {
		if !covered(tx) {
			left = append(left, tx)
		}
	}
	if p.open && (len(left) == 0 || !p.Continues(left[0])) {
		p.Abandon() // the origin begins anew
	}
	err := p.Take(left)
	return p, err
}

// Take notes the transactions of one batch, in order. While a transaction is open the first of
// them must continue it (Continues). Errors: ErrParts; nothing is noted then.
func (p *Parts) Take(txs []*wal.Transaction) error {
	next := *p
	for i, tx := range txs {
		switch {
		case next.open && !next.Continues(tx), !next.open && tx.Part > 0:
			return fmt.Errorf("part %d of transaction %d at %s behind %s: %w", tx.Part, tx.XID, tx.CommitLSN, next.String(), ErrParts)
		case tx.More && i < len(txs)-1:
			return fmt.Errorf("part %d of transaction %d at %s is not the last of its batch: %w", tx.Part, tx.XID, tx.CommitLSN, ErrParts)
		case tx.More:
			next = Parts{open: true, xid: tx.XID, commit: tx.CommitLSN, due: tx.Part + 1}
		default:
			next = Parts{}
		}
	}
	*p = next
	return nil
}
