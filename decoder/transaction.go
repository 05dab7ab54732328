package decoder

import (
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// transaction is the open transaction. Its changes are in the slab.
type transaction struct {
	open       bool
	suppressed bool
	xid        wal.XID
	origin     string
	commitLSN  wal.LSN
	commitTime wal.Micros
	messages   []wal.Message
	tell       []byte // pieces of a tell whose last one has not come
	part       uint32
	size       int // of the part being gathered, as wal.Transaction.Size counts
}

// onBegin opens a transaction. The server knows the commit already: it sends only what committed.
func (d *Decoder) onBegin(body []byte) error {
	if d.tx.open {
		return outOfOrder("transaction %d is still open", d.tx.xid)
	}
	if err := checkBegin(body); err != nil {
		return err
	}
	if err := d.begin.Decode(body); err != nil {
		return malformed("%v", err)
	}
	d.tx = transaction{
		open:       true,
		xid:        wal.XID(d.begin.Xid),
		commitLSN:  wal.LSN(d.begin.FinalLSN),
		commitTime: wal.MicrosOf(d.begin.CommitTime),
	}
	return nil
}

// onOrigin suppresses the open transaction unless its origin is forwarded. The server sends the
// origin right behind Begin.
func (d *Decoder) onOrigin(body []byte) error {
	if !d.tx.open {
		return outOfOrder("no transaction is open")
	}
	if err := checkOrigin(body); err != nil {
		return err
	}
	var m pglogrepl.OriginMessage
	if err := m.Decode(body); err != nil {
		return malformed("%v", err)
	}
	if m.Name == "" {
		return malformed("the origin has no name")
	}
	if d.cfg.AllOrigins || slices.Contains(d.cfg.ForwardOrigins, m.Name) {
		if !d.tx.suppressed {
			d.tx.origin = m.Name
		}
		return nil
	}
	return d.suppress(m.Name)
}

// suppress drops what the open transaction holds and makes it ignore what follows.
func (d *Decoder) suppress(origin string) error {
	if d.tx.part > 0 {
		return ErrLateMarker
	}
	if !d.tx.suppressed {
		d.tx.origin = origin
	}
	d.tx.suppressed = true
	d.tx.messages, d.tx.size = nil, 0
	d.slab.changes.drop()
	return nil
}

func (d *Decoder) onCommit(body []byte) (*wal.Transaction, error) {
	if !d.tx.open {
		return nil, outOfOrder("no transaction is open")
	}
	if err := checkCommit(body); err != nil {
		return nil, err
	}
	if err := d.commit.Decode(body); err != nil {
		return nil, malformed("%v", err)
	}
	if lsn := wal.LSN(d.commit.CommitLSN); lsn != d.tx.commitLSN {
		return nil, outOfOrder("it commits at %s, the open transaction at %s", lsn, d.tx.commitLSN)
	}
	end := wal.LSN(d.commit.TransactionEndLSN)
	if end <= d.tx.commitLSN {
		return nil, malformed("end %s is not above commit %s", end, d.tx.commitLSN)
	}
	if d.tx.suppressed {
		d.suppressed++
	}
	t := d.cut(false)
	t.EndLSN = end
	d.tx = transaction{}
	return t, nil
}

// cut gives out what the open transaction holds as its next part.
func (d *Decoder) cut(more bool) *wal.Transaction {
	t := &wal.Transaction{
		XID:        d.tx.xid,
		Origin:     d.tx.origin,
		CommitLSN:  d.tx.commitLSN,
		CommitTime: d.tx.commitTime,
		Changes:    d.slab.cut(more),
		Messages:   d.tx.messages,
		Part:       d.tx.part,
		More:       more,
		Applied:    d.tx.suppressed,
	}
	d.tx.messages, d.tx.size = nil, 0
	d.tx.part++
	return t
}
