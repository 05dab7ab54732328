package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrSenseless: a packet is well formed and says what no region can mean, such as an insert
// without a row. It was written by something else than this program.
var ErrSenseless = errors.New("packet makes no sense")

func senseless(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSenseless, fmt.Sprintf(format, args...))
}

// Check holds a parsed packet against what its kind may carry. A reader calls it before it
// lets anything act on the packet: what passes has rows where the operations need them, and keys
// whose columns are there. Errors: ErrSenseless.
func (p *Packet) Check(kind Kind) error {
	if kind == Heartbeat && len(p.Transactions) > 0 {
		return senseless("a heartbeat with transactions")
	}
	known := map[*wal.Relation]bool{}
	for _, tx := range p.Transactions {
		if err := checkTransaction(tx, kind); err != nil {
			return err
		}
		for i := range tx.Changes {
			if err := checkRelation(tx.Changes[i].Relation, known); err != nil {
				return err
			}
			if err := checkChange(&tx.Changes[i], kind); err != nil {
				return err
			}
		}
		for i := range tx.Notices {
			if err := checkRelation(tx.Notices[i].Relation, known); err != nil {
				return err
			}
			if err := CheckNotice(&tx.Notices[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkTransaction(tx *wal.Transaction, kind Kind) error {
	switch {
	case kind == Copy && (tx.More || tx.Part > 0 || tx.Applied || len(tx.Notices) > 0):
		return senseless("copied rows in parts, or with notices")
	case tx.More && tx.EndLSN != 0:
		return senseless("part %d of transaction %d has an end, and is not the last", tx.Part, tx.XID)
	case !tx.More && tx.EndLSN < tx.CommitLSN:
		return senseless("transaction %d ends at %s, before its commit at %s", tx.XID, tx.EndLSN, tx.CommitLSN)
	case len(tx.Origin) > maxName:
		return senseless("transaction %d has an origin of %d bytes", tx.XID, len(tx.Origin))
	}
	return nil
}

// checkRelation looks at names and key. Whether the table may be written is another question.
func checkRelation(rel *wal.Relation, known map[*wal.Relation]bool) error {
	if known[rel] {
		return nil
	}
	if err := checkNames(rel.Schema, rel.Name); err != nil {
		return err
	}
	names := make(map[string]bool, len(rel.Columns))
	for i := range rel.Columns {
		n := rel.Columns[i].Name
		if err := checkNames(n); err != nil {
			return err
		}
		if names[n] {
			return senseless("table %s has column %q twice", rel, n)
		}
		names[n] = true
	}
	if rel.PrimaryKey != nil && len(rel.PrimaryKey) == 0 {
		return senseless("table %s has a key without columns", rel)
	}
	seen := make(map[int]bool, len(rel.PrimaryKey))
	for _, k := range rel.PrimaryKey {
		if seen[k] {
			return senseless("the key of table %s has column %d twice", rel, k)
		}
		seen[k] = true
	}
	known[rel] = true
	return nil
}

func checkNames(names ...string) error {
	for _, n := range names {
		if n == "" || len(n) > maxName || strings.IndexByte(n, 0) >= 0 {
			return senseless("a name of %d bytes that no table or column can have", len(n))
		}
	}
	return nil
}

func checkChange(c *wal.Change, kind Kind) error {
	if kind == Copy && (c.Op != wal.Insert && c.Op != wal.Delete || c.Repair) { // rows, then tombstones
		return senseless("%s of %s among copied rows", c.Op, c.Relation)
	}
	if c.Answer && !c.Repair {
		return senseless("%s of %s that answers and is no repair", c.Op, c.Relation)
	}
	var whole wal.Tuple // what identifies the row
	switch c.Op {
	case wal.Truncate:
		if c.New != nil || c.Old != nil || c.Repair {
			return senseless("truncate of %s with a row", c.Relation)
		}
		return nil
	case wal.Delete:
		if c.New != nil || c.Old == nil {
			return senseless("delete of %s with a new row, or without the old one", c.Relation)
		}
		whole = c.Old
	default:
		if c.New == nil {
			return senseless("%s of %s without a row", c.Op, c.Relation)
		}
		whole = c.New
	}
	for _, k := range c.Relation.KeyColumns() {
		if v := whole[k].Kind; v == wal.Null || v == wal.Unchanged || v == wal.Digest {
			return senseless("%s of %s without its key", c.Op, c.Relation)
		}
	}
	return nil
}

// maxWord bounds what a notice calls a conflict and a region.
const maxWord = 64

// CheckNotice is the part of Packet.Check that is about one notice. Whoever publishes a notice asks it too: one that the peers
// refuse stops all that is behind it.
func CheckNotice(n *wal.Notice) error {
	if len(n.Type) > maxWord || len(n.To) > maxWord {
		return senseless("a notice of %s with words of %d and %d bytes", n.Relation, len(n.Type), len(n.To))
	}
	if (n.Outcome == wal.Wanted || n.Outcome == wal.Absent) && (!n.Yours.Known || n.Yours.Row == nil || len(n.Relation.KeyColumns()) == 0) {
		return senseless("a notice of %s that asks for no key", n.Relation)
	}
	for _, e := range [...]*wal.Entry{&n.Yours, &n.Mine} {
		if e.Row == nil {
			continue
		}
		for _, k := range n.Relation.KeyColumns() {
			if v := e.Row[k].Kind; v == wal.Null || v == wal.Unchanged || v == wal.Digest {
				return senseless("a notice of %s without its key", n.Relation)
			}
		}
	}
	return nil
}
