package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/pgwaltz/pgwaltz/wal"
)

// packetHead is the fixed part in front of a payload: place of the relation table (8 bytes),
// transactions (4), changes (4), values (4).
const packetHead = 20

// Bits of a transaction, a change and a message.
const (
	txMore     = 1 << 0
	txOrigin   = 1 << 1
	txMessages = 1 << 2
	txPart     = 1 << 3
	txNotices  = 1 << 4
	txApplied  = 1 << 5

	changeOld     = 1 << 0
	changeOldFull = 1 << 1
	changeNew     = 1 << 2
	changeBase    = 1 << 3
	changeDigest  = 1 << 4
	changeRepair  = 1 << 5
	changeAnswer  = 1 << 6

	entryKnown = 1 << 0
	entryAlive = 1 << 1
	entryRow   = 1 << 2

	messageTransactional = 1 << 0
)

// builder puts a payload together: transactions go straight into buf, the relations behind
// them when the packet is finished.
type builder struct {
	buf       []byte
	relations []*wal.Relation          // of this packet, by reference
	refs      map[*wal.Relation]uint32 // of this packet
	last      *wal.Relation            // spares the map while a table repeats
	lastRef   uint32
	entries   map[*wal.Relation][]byte // encoded relations, kept over packets
	tableSize int

	transactions, changes, values uint32
	beside                        int        // memory of relations, notices and messages once parsed, in bytes
	first, latest                 wal.Micros // commit times
	mark                          wal.Mark   // the newest transaction that is complete
	open                          bool       // the last one is a part with more to come
}

func (p *builder) empty() bool { return p.transactions == 0 }

// reset forgets the packet. A buffer that one giant row has blown up is given back.
func (p *builder) reset() {
	const keep = 16 << 20
	if cap(p.buf) > keep {
		p.buf = nil
	}
	p.buf = p.buf[:0]
	clear(p.relations)
	p.relations = p.relations[:0]
	clear(p.refs)
	p.last, p.lastRef, p.tableSize = nil, 0, 0
	p.transactions, p.changes, p.values, p.first, p.latest, p.beside = 0, 0, 0, 0, 0, 0
	p.mark, p.open = wal.Mark{}, false
	if len(p.entries) > maxCachedRelations {
		clear(p.entries)
	}
}

// size is the payload's size if it were finished now.
func (p *builder) size() int {
	if p.empty() {
		return 0
	}
	return len(p.buf) + p.tableSize + binary.MaxVarintLen32
}

// add appends tx unless that takes the payload above limit. On an error the packet is as it
// was before.
func (p *builder) add(tx *wal.Transaction, limit int) error {
	if len(p.buf) == 0 {
		p.buf = append(p.buf, make([]byte, packetHead)...)
	}
	start, values := len(p.buf), p.values
	if err := p.append(tx, limit); err != nil {
		p.buf, p.values = p.buf[:start], values
		return fmt.Errorf("encode transaction %d: %w", tx.XID, err)
	}
	p.count(tx)
	return nil
}

// append appends tx. On an error part of it may be there.
func (p *builder) append(tx *wal.Transaction, limit int) error {
	flags := p.head(tx)
	for i := range tx.Changes {
		if err := p.change(&tx.Changes[i], tx.CommitTime); err != nil {
			return err
		}
	}
	if flags&txNotices != 0 {
		p.buf = binary.AppendUvarint(p.buf, uint64(len(tx.Notices)))
		for i := range tx.Notices {
			if err := p.notice(&tx.Notices[i], tx.CommitTime); err != nil {
				return err
			}
		}
	}
	if flags&txMessages != 0 {
		p.messages(tx.Messages)
	}
	if n := len(p.buf) + p.tableSize + binary.MaxVarintLen32; n > limit {
		return fmt.Errorf("%w: the packet would have %d bytes, the limit is %d", ErrTooLarge, n, limit)
	}
	if n := p.cost() + costTransaction + len(tx.Changes)*costChange + costBeside(tx); n > MaxParsed {
		return fmt.Errorf("%w: the packet would take %d bytes in memory, the limit is %d", ErrTooLarge, n, MaxParsed)
	}
	return nil
}

// head appends what stands before the changes of tx, and returns its flags.
func (p *builder) head(tx *wal.Transaction) byte {
	var flags byte
	set := func(flag byte, is bool) {
		if is {
			flags |= flag
		}
	}
	set(txMore, tx.More)
	set(txOrigin, tx.Origin != "")
	set(txMessages, len(tx.Messages) > 0)
	set(txPart, tx.Part != 0)
	set(txNotices, len(tx.Notices) > 0)
	set(txApplied, tx.Applied)
	b := append(p.buf, flags)
	b = binary.AppendUvarint(b, uint64(tx.XID))
	if flags&txOrigin != 0 {
		b = appendText(b, tx.Origin)
	}
	b = binary.AppendUvarint(b, uint64(tx.CommitLSN))
	b = binary.AppendUvarint(b, uint64(tx.EndLSN))
	b = be.AppendUint64(b, uint64(tx.CommitTime))
	if flags&txPart != 0 {
		b = binary.AppendUvarint(b, uint64(tx.Part))
	}
	p.buf = binary.AppendUvarint(b, uint64(len(tx.Changes)))
	return flags
}

// count takes note of a transaction that was appended.
func (p *builder) count(tx *wal.Transaction) {
	p.beside += costBeside(tx)
	if p.transactions == 0 {
		p.first, p.latest = tx.CommitTime, tx.CommitTime
	}
	p.first, p.latest = min(p.first, tx.CommitTime), max(p.latest, tx.CommitTime)
	if p.open = tx.More; !tx.More {
		p.mark = wal.MarkOf(tx)
	}
	p.transactions++
	p.changes += uint32(len(tx.Changes))
}

func (p *builder) change(c *wal.Change, commit wal.Micros) error {
	if c.Relation == nil {
		return malformed("%s of no relation", c.Op)
	}
	switch c.Op {
	case wal.Insert, wal.Update, wal.Delete, wal.Truncate:
	default:
		return malformed("change of unknown kind on %s", c.Relation)
	}
	ref := p.refOf(c.Relation)
	var flags byte
	if c.Repair {
		flags |= changeRepair
	}
	if c.Answer {
		flags |= changeAnswer
	}
	if c.Old != nil {
		flags |= changeOld
	}
	if c.OldFull {
		flags |= changeOldFull
	}
	if c.New != nil {
		flags |= changeNew
	}
	if c.Base.Known {
		flags |= changeBase
	}
	if c.Base.HasDigest {
		flags |= changeDigest
	}
	b := append(p.buf, byte(c.Op), flags)
	b = binary.AppendUvarint(b, uint64(ref))
	b = appendStamp(b, c.Stamp, commit)
	if c.Answer {
		b = appendStamp(b, c.Asked, commit)
	}
	if c.Base.Known {
		b = appendStamp(b, c.Base.Stamp, commit)
	}
	if c.Base.HasDigest {
		b = append(b, c.Base.Digest[:]...)
	}
	ok := true
	if c.Old != nil {
		b, ok = appendTuple(b, c.Old, len(c.Relation.Columns))
	}
	if ok && c.New != nil {
		b, ok = appendTuple(b, c.New, len(c.Relation.Columns))
	}
	p.buf = b
	if !ok {
		return malformed("a tuple of %s does not fit its relation", c.Relation)
	}
	p.values += uint32(len(c.Old) + len(c.New))
	return nil
}

// appendTuple appends t as pgoutput's TupleData: a column count, and for each column its
// kind and, for a text or binary value, a length and the bytes; for a digest its 32 bytes.
func appendTuple(b []byte, t wal.Tuple, columns int) ([]byte, bool) {
	if len(t) != columns || len(t) > math.MaxInt16 {
		return b, false
	}
	b = be.AppendUint16(b, uint16(len(t)))
	for i := range t {
		switch v := &t[i]; v.Kind {
		case wal.Text, wal.Binary:
			n := len(v.Bytes)
			if n > math.MaxInt32 {
				return b, false
			}
			if n > 1<<20 {
				// Room for what follows a giant value, lest that copies it once more.
				b = slices.Grow(b, n+1<<16)
			}
			b = append(b, byte(v.Kind), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
			b = append(b, v.Bytes...)
		case wal.Null, wal.Unchanged:
			b = append(b, byte(v.Kind))
		case wal.Digest:
			if len(v.Bytes) != digestLen {
				return b, false
			}
			b = append(append(b, byte(v.Kind)), v.Bytes...)
		default:
			return b, false
		}
	}
	return b, true
}

func (p *builder) messages(ms []wal.Message) {
	b := binary.AppendUvarint(p.buf, uint64(len(ms)))
	for i := range ms {
		m := &ms[i]
		var flags byte
		if m.Transactional {
			flags |= messageTransactional
		}
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(m.LSN))
		b = appendText(b, m.Prefix)
		b = binary.AppendUvarint(b, uint64(len(m.Content)))
		b = append(b, m.Content...)
	}
	p.buf = b
}

// notice appends a notice: what it is of, and both entries.
func (p *builder) notice(n *wal.Notice, commit wal.Micros) error {
	if n.Relation == nil {
		return malformed("notice of no relation")
	}
	if n.Outcome > wal.Absent {
		return malformed("notice of %s with an unknown outcome", n.Relation)
	}
	b := binary.AppendUvarint(p.buf, uint64(p.refOf(n.Relation)))
	b = append(b, n.ID[:]...)
	b = append(b, byte(n.Outcome))
	b = appendText(b, n.To)
	b = appendText(b, n.Type)
	for _, e := range [...]*wal.Entry{&n.Yours, &n.Mine} {
		var flags byte
		if e.Known {
			flags |= entryKnown
		}
		if e.Alive {
			flags |= entryAlive
		}
		if e.Row != nil {
			flags |= entryRow
		}
		b = append(b, flags)
		if e.Known {
			b = appendStamp(b, e.Stamp, commit)
		}
		if e.Row != nil {
			var ok bool
			if b, ok = appendTuple(b, e.Row, len(n.Relation.Columns)); !ok {
				p.buf = b
				return malformed("a tuple of %s does not fit its relation", n.Relation)
			}
			p.values += uint32(len(e.Row))
		}
	}
	p.buf = b
	return nil
}

func (p *builder) refOf(rel *wal.Relation) uint32 {
	if rel == p.last {
		return p.lastRef
	}
	return p.ref(rel)
}

// ref returns the relation's place in the packet's table and remembers it for next time.
func (p *builder) ref(rel *wal.Relation) uint32 {
	ref, ok := p.refs[rel]
	if !ok {
		if p.refs == nil {
			p.refs = make(map[*wal.Relation]uint32)
			p.entries = make(map[*wal.Relation][]byte)
		}
		entry, known := p.entries[rel]
		if !known {
			entry = appendRelation(nil, rel)
			p.entries[rel] = entry
		}
		ref = uint32(len(p.relations))
		p.relations = append(p.relations, rel)
		p.refs[rel] = ref
		p.tableSize += len(entry) + binary.MaxVarintLen32
		p.beside += costRelation + len(entry)/minColumn*costColumn
	}
	p.last, p.lastRef = rel, ref
	return ref
}

// finish appends the relation table and returns the payload, which is valid until the next
// add or reset; nil for an empty packet.
func (p *builder) finish() []byte {
	if p.empty() {
		return nil
	}
	be.PutUint64(p.buf, uint64(len(p.buf)))
	be.PutUint32(p.buf[8:], p.transactions)
	be.PutUint32(p.buf[12:], p.changes)
	be.PutUint32(p.buf[16:], p.values)
	p.buf = binary.AppendUvarint(p.buf, uint64(len(p.relations)))
	for _, rel := range p.relations {
		entry := p.entries[rel]
		p.buf = binary.AppendUvarint(p.buf, uint64(len(entry)))
		p.buf = append(p.buf, entry...)
	}
	return p.buf
}
