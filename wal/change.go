package wal

// Op is the kind of a change.
type Op byte

const (
	Insert   Op = 'I'
	Update   Op = 'U'
	Delete   Op = 'D'
	Truncate Op = 'T'
)

// String returns the SQL word in lower case.
func (o Op) String() string {
	switch o {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Truncate:
		return "truncate"
	}
	return "unknown"
}

// Base is what is known of the row that a change overwrote, at its origin.
type Base struct {
	Known bool  // false for inserts, and where the replica identity does not carry it
	Stamp Stamp // valid when Known
	// Digest is the digest of the overwritten image (conflict.Digest); only where the stamp alone does not identify
	// an image: without stamp columns, without a time, with an equal stamp, and behind generation 0.
	Digest    [16]byte
	HasDigest bool
}

// Change is one row event, or a truncate of one relation.
type Change struct {
	Op       Op
	Relation *Relation
	// Old is what the WAL said of the row before the change: nil, a key-only tuple or
	// the full old image (OldFull). The publisher drops it where the receiver has no use
	// for it: it stays for deletes and for changes of the key.
	Old     Tuple
	OldFull bool
	// New is the image after the change; nil for Delete and Truncate.
	New Tuple
	// Stamp and Base are set by the publisher (conflict.Stamper), nobody else.
	Stamp Stamp
	Base  Base
	// Repair: the row is not a write of the origin. It is the entry that the origin holds,
	// sent again because another region has one that loses against it. It has its stamp
	// from whoever made it and is merged like any change.
	Repair bool
	// Answer: the repair is what the origin holds of a key that it was asked for (Wanted). It had
	// merged its own changes by then, so it does not hold anything higher. Of other repairs the
	// generation may be too low.
	Answer bool
	// Brief: the row that a delete removed was inserted by the same run of changes. Parked changes
	// only, which are net effects; it does not travel.
	Brief bool
	// Raised: its generation is above everything that was known of the key before, so it has to be
	// written down even if nothing else of the change is needed. The publisher's; it does not travel.
	Raised bool
	// Asked is the stamp of the change that was asked for (Answer): who waits for a later one is
	// told nothing by that.
	Asked Stamp
	// Keys is set where the server had to be asked for the key's text (Relation.Asks), by the
	// side that reads the change. It does not travel: each region asks its own server.
	Keys *Keys
}

// Size is an estimate of the bytes the change holds in memory.
func (c *Change) Size() int {
	return 96 + 32*(len(c.Old)+len(c.New)) + c.Old.Size() + c.New.Size()
}

// Entry is what a region knows of a key: a live row, a tombstone, or nothing.
type Entry struct {
	Known, Alive bool
	Stamp        Stamp // valid when Known
	// Row is the live row; of other entries the key alone, the other columns being Null.
	Row Tuple
}

// Outcome says how a conflict ended for the region that is told of it.
type Outcome uint8

const (
	// Open: nothing was decided; the change of the region that is told was set aside.
	Open Outcome = iota
	// Won: the entry of the region that is told stays.
	Won
	// Lost: the other entry stays.
	Lost
	// Wanted: nothing was decided, because the change of the region that is told lacks values
	// that only its origin has. That region answers with the entry that it holds, as a repair.
	// Nothing is recorded.
	Wanted
	// Absent: the region that is told has asked (Wanted) for a key of which nothing is known here, not
	// even a tombstone. Nothing is recorded.
	Absent
)

// Notice tells a region of a conflict that another one has found, so that the audit logs of
// both hold it under the same id. It is recorded and never merged: a notice carries rows only
// for the record.
type Notice struct {
	Relation *Relation
	ID       [16]byte // conflict.EventID, as in the log of the region that tells
	To       string   // the region that is told
	Type     string   // conflict.Type, as the region that is told sees it
	Outcome  Outcome
	Yours    Entry // the entry of the region that is told
	Mine     Entry // what it met in the region that tells
}

// Size is an estimate of the bytes the notice holds in memory.
func (n *Notice) Size() int {
	return 256 + 32*(len(n.Yours.Row)+len(n.Mine.Row)) + n.Yours.Row.Size() + n.Mine.Row.Size()
}

// Message is a logical message (pg_logical_emit_message).
type Message struct {
	Transactional bool
	LSN           LSN
	Prefix        string
	Content       []byte
}

// Transaction is the unit of everything: one committed transaction of one origin, or a
// part of a very large one. Parts come in order, Part counts from 0, and More is set on all
// but the last; EndLSN is known, and non-zero, only on the last part.
type Transaction struct {
	XID       XID
	Origin    string // replication origin that the transaction carries at its server, "" for none
	CommitLSN LSN
	EndLSN    LSN // what is confirmed and stored; the start of the next transaction at the earliest
	// CommitTime is the origin's clock at commit.
	CommitTime Micros
	Changes    []Change
	Notices    []Notice
	Messages   []Message
	Part       uint32
	More       bool
	// Applied: the region's own sidecar applied it, so that it holds no writes of the region,
	// only what it has to tell the others: repairs and notices.
	Applied bool
}

// Size is an estimate of the bytes the transaction part holds in memory.
func (t *Transaction) Size() int {
	n := 128
	for i := range t.Changes {
		n += t.Changes[i].Size()
	}
	for i := range t.Notices {
		n += t.Notices[i].Size()
	}
	for i := range t.Messages {
		n += 64 + len(t.Messages[i].Content)
	}
	return n
}
