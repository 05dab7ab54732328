package wal

import "fmt"

// Mark is the identity of one transaction in its WAL. After a restore a server uses positions
// again, but not with the same transaction id and commit time: two marks with one EndLSN that
// differ prove two histories. The zero Mark stands for no transaction.
type Mark struct {
	EndLSN     LSN
	XID        XID
	CommitTime Micros
}

// MarkOf is the identity of a transaction; of one in parts, ask the last.
func MarkOf(tx *Transaction) Mark {
	return Mark{EndLSN: tx.EndLSN, XID: tx.XID, CommitTime: tx.CommitTime}
}

// String prints the mark for logs and errors.
func (m Mark) String() string {
	if m == (Mark{}) {
		return "no transaction"
	}
	return fmt.Sprintf("transaction %d ending at %s, committed %s", m.XID, m.EndLSN, m.CommitTime.Time().UTC().Format("2006-01-02T15:04:05.999999Z"))
}
