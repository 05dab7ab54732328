package decoder

import (
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Decoder is the state of decoding one replication connection. It belongs to one goroutine,
// the one that reads the slot.
type Decoder struct {
	cfg        Config
	relations  map[uint32]*wal.Relation
	types      map[uint32]string // names of user types, by oid
	tx         transaction
	slab       slab
	err        error              // sticky until Reset
	unnumbered map[uint32]wal.LSN // relations whose columns are not known, and from where on to ask again
	suppressed uint64
	foreign    uint64 // messages that pretend to be ours

	// Parsed into again and again: a one-row transaction has one of each.
	begin  pglogrepl.BeginMessage
	commit pglogrepl.CommitMessage
}

// New returns a Decoder that waits for the first message of a connection. It keeps copies of
// the slices in cfg.
func New(cfg Config) *Decoder {
	if cfg.MaxPart <= 0 {
		cfg.MaxPart = DefaultMaxPart
	}
	if cfg.MarkerPrefix == "" {
		cfg.MarkerPrefix = DefaultMarkerPrefix
	}
	cfg.Marker = slices.Clone(cfg.Marker)
	cfg.ForwardOrigins = slices.Clone(cfg.ForwardOrigins)
	d := &Decoder{cfg: cfg}
	d.Reset()
	return d
}

// Reset prepares for a new connection: the open transaction and the relation descriptions are
// dropped, an earlier error is forgotten. Transactions given out stay valid.
func (d *Decoder) Reset() {
	d.relations = make(map[uint32]*wal.Relation)
	d.types = make(map[uint32]string)
	d.unnumbered = make(map[uint32]wal.LSN)
	d.tx = transaction{}
	d.slab = slab{}
	d.err = nil
}

// InTransaction reports whether a transaction has begun and not yet committed. Positions from
// keepalives must not be taken while it has.
func (d *Decoder) InTransaction() bool { return d.tx.open }

// Suppressed is the number of transactions that were dropped as echoes since New.
func (d *Decoder) Suppressed() uint64 { return d.suppressed }

// Feed takes one pgoutput message, received with position at (used in errors only). It
// returns a transaction when the message commits one, a part of it when the open one has
// outgrown Config.MaxPart, else nil. Feed keeps nothing of msg.
//
// A suppressed transaction comes as a Transaction without changes whose Origin says why: the
// name of its replication origin, or MarkerOrigin. Of its messages only what it tells is left
// (TellPrefix); when that is much, it comes in parts.
//
// Errors are of type *Error and stay until Reset.
func (d *Decoder) Feed(at wal.LSN, msg []byte) (*wal.Transaction, error) {
	if d.err != nil {
		return nil, d.err
	}
	tx, err := d.feed(msg)
	if err != nil {
		e := &Error{LSN: at, Err: err}
		if len(msg) > 0 {
			e.Type = msg[0]
		}
		d.err = e
		return nil, e
	}
	return tx, nil
}

func (d *Decoder) feed(msg []byte) (*wal.Transaction, error) {
	if len(msg) == 0 {
		return nil, malformed("it has no type")
	}
	body := msg[1:]
	var err error
	switch pglogrepl.MessageType(msg[0]) {
	case pglogrepl.MessageTypeBegin:
		return nil, d.onBegin(body)
	case pglogrepl.MessageTypeCommit:
		return d.onCommit(body)
	case pglogrepl.MessageTypeRelation:
		return nil, d.onRelation(body)
	case pglogrepl.MessageTypeType:
		return nil, d.onType(body)
	case pglogrepl.MessageTypeOrigin:
		return nil, d.onOrigin(body)
	case pglogrepl.MessageTypeInsert:
		err = d.onRow(wal.Insert, body)
	case pglogrepl.MessageTypeUpdate:
		err = d.onRow(wal.Update, body)
	case pglogrepl.MessageTypeDelete:
		err = d.onRow(wal.Delete, body)
	case pglogrepl.MessageTypeTruncate:
		err = d.onTruncate(body)
	case pglogrepl.MessageTypeMessage:
		err = d.onMessage(body)
	default:
		// Skipping what is not known would be losing it.
		err = ErrUnknownMessage
	}
	if err != nil || d.tx.size < d.cfg.MaxPart {
		return nil, err
	}
	return d.cut(true), nil
}
