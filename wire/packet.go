package wire

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Packet is what one or more frames carry together.
type Packet struct {
	Transactions []*wal.Transaction
}

// Changes counts the changes of all transactions.
func (p *Packet) Changes() int {
	n := 0
	for _, tx := range p.Transactions {
		n += len(tx.Changes)
	}
	return n
}

// Rows counts what a batch has to hold: changes and notices.
func (p *Packet) Rows() int {
	n := 0
	for _, tx := range p.Transactions {
		n += len(tx.Changes) + len(tx.Notices)
	}
	return n
}

// ParsePacket parses a whole payload. The transactions' values point into payload, which
// must stay unmodified as long as one of them lives. Memory: about four times the payload for
// ordinary rows, and never more than MaxParsed beside the payload.
// Errors: ErrMalformed, ErrTooLarge.
func ParsePacket(payload []byte) (*Packet, error) {
	return (*RelationCache)(nil).ParsePacket(payload)
}

// ParsePacket is the function of the same name with the relations taken from the cache.
func (c *RelationCache) ParsePacket(payload []byte) (*Packet, error) {
	if len(payload) == 0 {
		return &Packet{}, nil
	}
	p, err := c.parse(payload)
	if err != nil {
		return nil, fmt.Errorf("parse packet: %w", err)
	}
	return p, nil
}

// parser holds the slabs of one packet: one allocation each for all transactions, changes
// and values, or a few if the counts in front were too low.
type parser struct {
	reader
	relations []*wal.Relation
	values    []wal.Value
	changes   []wal.Change
	want      int // values still announced
	cost      int // memory beside the payload, in bytes
}

// Least sizes in a payload, for checking counts.
const (
	minTransaction = 13
	minChange      = 4
	minMessage     = 4
	minNotice      = 22

	digestLen = 32 // of a value (wal.Digest)

	maxSlab = 1 << 16 // values allocated at once on the word of a count
)

func (c *RelationCache) parse(payload []byte) (*Packet, error) {
	if len(payload) < packetHead {
		return nil, malformed("payload of %d bytes", len(payload))
	}
	table := be.Uint64(payload)
	if table < packetHead || table >= uint64(len(payload)) {
		return nil, malformed("relation table at %d of %d", table, len(payload))
	}
	txs, changes := int(be.Uint32(payload[8:])), int(be.Uint32(payload[12:]))
	body := payload[packetHead:table]
	if txs == 0 || txs > len(body)/minTransaction || changes > len(body)/minChange {
		return nil, malformed("%d transactions and %d changes in %d bytes", txs, changes, len(body))
	}
	p := parser{reader: reader{b: payload[table:]}, want: min(int(be.Uint32(payload[16:])), len(body))}
	if !p.spend(txs*costTransaction + changes*costChange) {
		return nil, p.err
	}
	if err := p.table(c); err != nil {
		return nil, err
	}
	p.reader = reader{b: body}
	p.changes = make([]wal.Change, changes)
	slab := make([]wal.Transaction, txs)
	packet := &Packet{Transactions: make([]*wal.Transaction, txs)}
	for i := range slab {
		p.transaction(&slab[i])
		if p.err != nil {
			return nil, p.err
		}
		packet.Transactions[i] = &slab[i]
	}
	if p.left() != 0 || len(p.changes) != 0 {
		return nil, malformed("%d bytes and %d changes are left over", p.left(), len(p.changes))
	}
	return packet, nil
}

func (p *parser) table(c *RelationCache) error {
	p.relations = make([]*wal.Relation, p.count("relation", 1))
	for i := range p.relations {
		entry := p.text()
		if p.err != nil || !p.spend(costRelation+len(entry)/minColumn*costColumn) {
			return p.err
		}
		rel, err := c.get(entry)
		if err != nil {
			return err
		}
		p.relations[i] = rel
	}
	if p.err == nil && p.left() != 0 {
		p.fail("%d bytes follow the relation table", p.left())
	}
	return p.err
}

func (p *parser) transaction(tx *wal.Transaction) {
	flags := p.byte()
	if flags&^(txMore|txOrigin|txMessages|txPart|txNotices|txApplied) != 0 {
		p.fail("transaction flags 0x%x", flags)
		return
	}
	tx.More, tx.Applied = flags&txMore != 0, flags&txApplied != 0
	tx.XID = wal.XID(p.uint32("xid"))
	if flags&txOrigin != 0 {
		tx.Origin = string(p.text())
	}
	tx.CommitLSN = wal.LSN(p.uvarint())
	tx.EndLSN = wal.LSN(p.uvarint())
	tx.CommitTime = wal.Micros(p.uint64())
	if flags&txPart != 0 {
		tx.Part = p.uint32("part")
	}
	n := p.count("change", minChange)
	if n > len(p.changes) {
		p.fail("more changes than announced")
		return
	}
	if n > 0 {
		tx.Changes = p.changes[:n:n]
		p.changes = p.changes[n:]
	}
	for i := range tx.Changes {
		if p.change(&tx.Changes[i], tx.CommitTime); p.err != nil {
			return
		}
	}
	if flags&txNotices != 0 {
		p.notices(tx)
	}
	if flags&txMessages != 0 {
		p.messages(tx)
	}
}

func (p *parser) notices(tx *wal.Transaction) {
	n := p.count("notice", minNotice)
	if n == 0 || !p.spend(n*costNotice) {
		return
	}
	tx.Notices = make([]wal.Notice, n)
	for i := range tx.Notices {
		if p.notice(&tx.Notices[i], tx.CommitTime); p.err != nil {
			return
		}
	}
}

func (p *parser) notice(n *wal.Notice, commit wal.Micros) {
	if n.Relation = p.relation(); n.Relation == nil {
		return
	}
	copy(n.ID[:], p.take(16))
	if n.Outcome = wal.Outcome(p.byte()); n.Outcome > wal.Absent {
		p.fail("notice with outcome 0x%x", byte(n.Outcome))
		return
	}
	n.To = string(p.text())
	n.Type = string(p.text())
	for _, e := range [...]*wal.Entry{&n.Yours, &n.Mine} {
		flags := p.byte()
		if flags&^(entryKnown|entryAlive|entryRow) != 0 {
			p.fail("entry flags 0x%x", flags)
			return
		}
		e.Known, e.Alive = flags&entryKnown != 0, flags&entryAlive != 0
		if e.Known {
			e.Stamp = p.stamp(commit)
		}
		if flags&entryRow != 0 {
			e.Row = p.tuple(n.Relation)
		}
	}
}

// relation reads a place in the relation table.
func (p *parser) relation() *wal.Relation {
	ref := p.uvarint()
	if p.err == nil && ref >= uint64(len(p.relations)) {
		p.fail("relation %d of %d", ref, len(p.relations))
	}
	if p.err != nil {
		return nil
	}
	return p.relations[ref]
}

func (p *parser) change(c *wal.Change, commit wal.Micros) {
	head := p.take(2)
	if head == nil {
		return
	}
	flags := head[1]
	switch c.Op = wal.Op(head[0]); c.Op {
	case wal.Insert, wal.Update, wal.Delete, wal.Truncate:
	default:
		p.fail("change of unknown kind 0x%x", head[0])
		return
	}
	if flags&^(changeOld|changeOldFull|changeNew|changeBase|changeDigest|changeRepair|changeAnswer) != 0 {
		p.fail("change flags 0x%x", flags)
		return
	}
	if c.Relation = p.relation(); c.Relation == nil {
		return
	}
	c.Repair = flags&changeRepair != 0
	c.Answer = flags&changeAnswer != 0
	c.OldFull = flags&changeOldFull != 0
	c.Stamp = p.stamp(commit)
	if c.Answer {
		c.Asked = p.stamp(commit)
	}
	if flags&changeBase != 0 {
		c.Base.Known = true
		c.Base.Stamp = p.stamp(commit)
	}
	if flags&changeDigest != 0 {
		c.Base.HasDigest = true
		copy(c.Base.Digest[:], p.take(16))
	}
	if flags&changeOld != 0 {
		c.Old = p.tuple(c.Relation)
	}
	if flags&changeNew != 0 {
		c.New = p.tuple(c.Relation)
	}
}

func (p *parser) tuple(rel *wal.Relation) wal.Tuple {
	head := p.take(2)
	if head == nil {
		return nil
	}
	n := int(be.Uint16(head))
	if n != len(rel.Columns) || n > p.left() {
		p.fail("tuple of %d values for %d columns", n, len(rel.Columns))
		return nil
	}
	if !p.spend(n * costValue) {
		return nil
	}
	if p.values == nil || len(p.values) < n {
		p.values = make([]wal.Value, max(n, min(p.want, p.left(), maxSlab)))
	}
	t := wal.Tuple(p.values[:n:n])
	p.values = p.values[n:]
	p.want -= n
	b, i := p.b, p.i
	for k := range t {
		if i >= len(b) {
			p.fail("payload ends early")
			return nil
		}
		switch kind := wal.Kind(b[i]); kind {
		case wal.Text, wal.Binary:
			if len(b)-i < 5 {
				p.fail("payload ends early")
				return nil
			}
			size := int(be.Uint32(b[i+1:]))
			i += 5
			if size > len(b)-i {
				p.fail("a value is longer than its payload")
				return nil
			}
			t[k] = wal.Value{Kind: kind, Bytes: b[i : i+size : i+size]}
			i += size
		case wal.Null, wal.Unchanged:
			t[k].Kind = kind
			i++
		case wal.Digest:
			if len(b)-i < 1+digestLen {
				p.fail("payload ends early")
				return nil
			}
			t[k] = wal.Value{Kind: kind, Bytes: b[i+1 : i+1+digestLen : i+1+digestLen]}
			i += 1 + digestLen
		default:
			p.fail("value of unknown kind 0x%x", byte(kind))
			return nil
		}
	}
	p.i = i
	return t
}

func (p *parser) messages(tx *wal.Transaction) {
	n := p.count("message", minMessage)
	if n == 0 || !p.spend(n*costMessage) {
		return
	}
	tx.Messages = make([]wal.Message, n)
	for i := range tx.Messages {
		m := &tx.Messages[i]
		flags := p.byte()
		if flags&^messageTransactional != 0 {
			p.fail("message flags 0x%x", flags)
		}
		m.Transactional = flags&messageTransactional != 0
		m.LSN = wal.LSN(p.uvarint())
		m.Prefix = string(p.text())
		m.Content = p.text()
		if p.err != nil {
			return
		}
	}
}
