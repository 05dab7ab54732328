package framing

import (
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// Config is what a Framer works with.
type Config struct {
	Encoder wire.EncoderConfig
	// Tail is where the stream ends, or an incarnation begins.
	Tail wire.Position
	// Past watches what the WAL repeats of what was published before, also in another
	// incarnation; nil when that is nothing.
	Past *checkpoint.Repetition
	// Resync marks a new incarnation that admits a gap.
	Resync bool
	// Resumed marks one that begins behind what the stream holds.
	Resumed bool
	// SameWAL, with Resync: what peers have applied before it counts.
	SameWAL bool
	// Newcomers marks one behind which all tables are copied, for peers that have applied nothing.
	Newcomers  bool
	FrameBytes int           // from this size on a packet is cut; bytes
	Linger     time.Duration // how long to gather while something is under way
	Heartbeat  time.Duration // how long the stream may be quiet
	// Put takes each frame as it is cut, in the order in which they must be published. It
	// may wait. An error ends the packet; the pipe has to be opened anew then.
	Put func(wire.Frame) error
	// TooLarge is told of a change that no packet can hold and that is left out, with its size in
	// bytes. May be nil.
	TooLarge func(rel *wal.Relation, op wal.Op, size int)
}

// Framer cuts the stamped transactions of one run of the outbound pipe into frames. It belongs
// to one goroutine. The errors that it returns come from the encoder and from Put; after
// one of them it is of no use any more.
type Framer struct {
	cfg     Config
	enc     *wire.Encoder
	pace    pace
	decoded wal.LSN   // everything at or below is framed or in the encoder
	inParts bool      // a transaction of many parts is open in the stream
	parted  wal.LSN   // commit position of the one that the WAL is in the middle of; 0: none
	wanted  bool      // somebody waits for a position
	last    time.Time // when a packet was cut last
	held    []Extra
}

// New makes a Framer that goes on behind cfg.Tail. Begin comes next.
func New(cfg Config, now time.Time) *Framer {
	return &Framer{
		cfg: cfg, enc: wire.NewEncoder(cfg.Encoder, cfg.Tail), pace: pace{linger: cfg.Linger},
		decoded: cfg.Tail.EndLSN, last: now,
	}
}

// Begin publishes the first frame of an incarnation, which says from where it continues. In
// an incarnation that has frames already it does nothing.
func (f *Framer) Begin(now time.Time) error {
	if f.cfg.Tail.Number != 0 {
		return nil
	}
	return f.cut(wire.Heartbeat, f.cfg.Tail.EndLSN, now)
}

// Position is the place behind the last frame.
func (f *Framer) Position() wire.Position { return f.enc.Position() }

// Decoded is the position at or below which everything is framed or gathered.
func (f *Framer) Decoded() wal.LSN { return f.decoded }

// Gathered is the number of transactions that wait for the next cut.
func (f *Framer) Gathered() int { return f.enc.Len() }

// InParts reports whether a transaction of many parts is open.
func (f *Framer) InParts() bool { return f.inParts }

// Known reports whether the stream holds the transaction, or the part, already. Errors:
// *checkpoint.HistoryError, when the WAL is not the one that was published before.
func (f *Framer) Known(tx *wal.Transaction) (bool, error) {
	f.parted = 0
	if tx.More {
		f.parted = tx.CommitLSN
	}
	if f.cfg.Past == nil {
		return false, nil
	}
	if err := f.cfg.Past.Show(tx); err != nil {
		return false, err
	}
	// A new incarnation from the slot begins before what is known, and publishes it again.
	return f.cfg.Past.EndsBy(f.cfg.Tail.EndLSN) && f.cfg.Past.Knows(tx), nil
}

// Proven reports whether the WAL is proved to be the one that was published before, as far as
// it repeats it. Until then no position may be confirmed.
func (f *Framer) Proven() bool { return f.cfg.Past == nil || f.cfg.Past.Proven() }

// Empty reports whether a transaction has nothing to publish. A part without changes has, when
// an earlier part of the transaction had: readers wait for its end.
func (f *Framer) Empty(tx *wal.Transaction) bool {
	return len(tx.Changes) == 0 && (tx.Part == 0 || f.parted != tx.CommitLSN)
}

// Count notes how many transactions the WAL brought, with how many changes, for the pace.
func (f *Framer) Count(transactions, changes int, now time.Time) {
	f.pace.count(transactions, changes, now)
}

// Add takes a stamped transaction, or a part of one, that the stream does not hold. Its
// messages are not framed.
func (f *Framer) Add(tx *wal.Transaction, now time.Time) error {
	if tx.More && tx.Part == 0 {
		if err := f.Flush(now); err != nil { // parts begin a packet of their own
			return err
		}
	}
	f.inParts = tx.More
	f.fit(tx)
	messages := tx.Messages
	tx.Messages = nil
	err := f.enc.Add(tx)
	tx.Messages = messages
	if err != nil {
		return err
	}
	if !tx.More {
		f.decoded = max(f.decoded, tx.EndLSN)
		if !tx.Applied {
			f.pace.newest = tx.CommitTime
		}
	}
	if f.enc.Size() >= f.cfg.FrameBytes || tx.More {
		return f.Flush(now)
	}
	return nil
}

// Passed takes note of a position of the WAL with nothing to publish at or below it that was
// not added. Errors: *checkpoint.HistoryError.
func (f *Framer) Passed(at wal.LSN) error {
	if f.cfg.Past != nil {
		if err := f.cfg.Past.Reach(at); err != nil {
			return err
		}
	}
	f.decoded = max(f.decoded, at)
	return nil
}

// Want asks for a position in the stream as soon as no transaction is open.
func (f *Framer) Want() { f.wanted = true }

// Flush frames what is gathered.
func (f *Framer) Flush(now time.Time) error {
	if f.enc.Len() == 0 {
		return nil
	}
	end := f.decoded
	if f.inParts {
		end = 0
	}
	return f.cut(wire.Data, end, now)
}

// Next does what is due now: packets that were held back, a position that somebody wants,
// and what is gathered, when it need not wait. inFlight is the number of frames that are not
// durable yet. It returns when it wants to be called again at the latest; the zero time
// when it need not be.
func (f *Framer) Next(now time.Time, inFlight int) (time.Time, error) {
	if err := f.release(now); err != nil {
		return time.Time{}, err
	}
	if f.wanted && !f.inParts {
		f.wanted = false
		return time.Time{}, f.position(now)
	}
	if f.enc.Len() == 0 {
		return time.Time{}, nil
	}
	out, due := f.pace.next(now, inFlight)
	if out {
		return time.Time{}, f.Flush(now)
	}
	return due, nil
}

// Beat says a position when the stream was quiet for the heartbeat interval. It is called a
// few times in each interval.
func (f *Framer) Beat(now time.Time) error {
	if f.inParts || now.Sub(f.last) < f.cfg.Heartbeat {
		return nil
	}
	return f.position(now)
}

// position publishes how far the WAL is decoded, with what is gathered or alone.
func (f *Framer) position(now time.Time) error {
	if f.enc.Len() > 0 {
		return f.Flush(now)
	}
	return f.cut(wire.Heartbeat, f.decoded, now)
}

func (f *Framer) cut(kind wire.Kind, end wal.LSN, now time.Time) error {
	_, err := f.packet(kind, end, now)
	return err
}

// packet cuts what the encoder holds and returns the last header.
func (f *Framer) packet(kind wire.Kind, end wal.LSN, now time.Time) (wire.Header, error) {
	var flags wire.Flags
	if f.cfg.Resync {
		flags |= wire.Resync
	}
	if f.cfg.Resumed {
		flags |= wire.Resumed
	}
	if f.cfg.SameWAL {
		flags |= wire.SameWAL
	}
	if f.cfg.Newcomers {
		flags |= wire.Newcomers
	}
	var last wire.Header
	for fr := range f.enc.CutSeq(kind, flags, end, wal.MicrosOf(now)) {
		if err := f.cfg.Put(fr); err != nil {
			return last, err
		}
		last = fr.Header
	}
	f.last, f.pace.due = now, time.Time{}
	return last, nil
}

// Extra is a packet that does not come from the WAL.
type Extra struct {
	Kind         wire.Kind
	Transactions []*wal.Transaction
	// After is the position that the WAL must have reached before the packet may go out:
	// copied rows must not overtake the changes that they already contain.
	After wal.LSN
	// Keep tells which of the changes still may go out, when their turn has come; nil: all.
	Keep func(*wal.Change) bool
	// Done is called when the packet was framed, with its last header; may be nil.
	Done func(wire.Header)
}

// Hold takes a packet until its position has come; Next sends it.
func (f *Framer) Hold(x Extra) { f.held = append(f.held, x) }

// Held is the number of packets held back.
func (f *Framer) Held() int { return len(f.held) }

// release sends the packets whose position has come, in the order in which they came.
func (f *Framer) release(now time.Time) error {
	for len(f.held) > 0 && !f.inParts && f.held[0].After <= f.decoded {
		x := f.held[0]
		f.held = f.held[1:]
		if err := f.Flush(now); err != nil {
			return err
		}
		for _, tx := range x.Transactions {
			if x.Keep != nil {
				tx.Changes = slices.DeleteFunc(tx.Changes, func(ch wal.Change) bool { return !x.Keep(&ch) })
			}
			f.fit(tx)
			if err := f.enc.Add(tx); err != nil {
				return err
			}
		}
		h, err := f.packet(x.Kind, 0, now)
		if err != nil {
			return err
		}
		if x.Done != nil {
			x.Done(h)
		}
	}
	return nil
}
