package replicator

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Tells is what an apply transaction of this region has to say to the others: repairs and
// notices, which it wrote into its own WAL (sink/apply). They are published at the place of
// that transaction. Nothing here is stamped: a repair has its stamp from whoever made it.
type Tells struct {
	repairs []wal.Change
	notices []wal.Notice
}

// TellsOf reads the messages of a transaction, or of a part of one. It gives an applied
// transaction its commit time, which the server does not know: such a transaction comes out
// of the slot with the time that was set for its replication origin, which is none. That has
// to happen before anybody asks which transaction it is (wal.MarkOf).
func TellsOf(tx *wal.Transaction) (Tells, error) {
	var t Tells
	for i := range tx.Messages {
		m := &tx.Messages[i]
		if m.Prefix != decoder.TellPrefix {
			continue
		}
		said, err := wire.ParseTransaction(m.Content)
		if err != nil {
			return t, fmt.Errorf("read repairs and notices of the transaction at %s: %w", tx.CommitLSN, err)
		}
		t.repairs = append(t.repairs, said.Changes...)
		for _, n := range said.Notices {
			if n, ok := sensible(n); ok {
				t.notices = append(t.notices, n)
			}
		}
		if tx.Applied {
			tx.CommitTime = max(tx.CommitTime, said.CommitTime)
		}
	}
	return t, nil
}

// sensible returns what the peers take of a notice. Where they would refuse its rows it goes without: the conflict is what both
// logs need. It reports false where nothing of it is left.
func sensible(n wal.Notice) (wal.Notice, bool) {
	if wire.CheckNotice(&n) == nil {
		return n, true
	}
	n.Yours.Row, n.Mine.Row = nil, nil
	return n, wire.CheckNotice(&n) == nil
}

// Any reports whether there is something to say.
func (t *Tells) Any() bool { return len(t.repairs)+len(t.notices) > 0 }

// With returns what a peer gets of the transaction. Positions and markers are nothing for it.
func (t *Tells) With(tx *wal.Transaction) *wal.Transaction {
	out := *tx
	out.Messages, out.Notices = nil, t.notices
	if len(t.repairs) > 0 {
		out.Changes = append(tx.Changes[:len(tx.Changes):len(tx.Changes)], t.repairs...)
	}
	if tx.Applied {
		out.Origin = "" // it is this region that speaks
	}
	return &out
}
