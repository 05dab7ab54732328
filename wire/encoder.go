package wire

import (
	"crypto/ed25519"
	"iter"

	"github.com/klauspost/compress/s2"

	"github.com/pgwaltz/pgwaltz/wal"
)

const (
	// DefaultMaxFrame is the message size that fits a NATS server's default max_payload
	// of 1 MiB, also where the server answers with a stored message in base64: that answer is a
	// third larger, and a link that it does not fit through is closed (StoredSize).
	DefaultMaxFrame = 700 << 10
	// DefaultMaxPacket bounds a packet, in bytes before compression, on both sides.
	DefaultMaxPacket = 512 << 20

	minFragment = 256 // the least payload of a fragment, whatever MaxFrame says
)

// StoredSize is how large an answer of JetStream is that holds a stored frame.
func StoredSize(frame int) int { return frame/3*4 + 16<<10 }

// EncoderConfig is fixed for the life of an Encoder. The names must satisfy CheckName.
type EncoderConfig struct {
	Cluster, Origin string
	Epoch           wal.Epoch
	// Compress tries S2 on every frame and keeps the smaller form.
	Compress bool
	// MaxFrame is the largest message in bytes, header and signature included; 0 means
	// DefaultMaxFrame, and more than MaxPayload means MaxPayload.
	MaxFrame int
	// MaxPacket is the largest packet in bytes; 0 means DefaultMaxPacket. It must not
	// exceed the readers' limit.
	MaxPacket int
	// Sign returns the ed25519 signature of its argument; nil leaves frames unsigned.
	Sign func([]byte) []byte
}

// Position is the place after a frame: what the next one continues. A new incarnation starts
// at Number 0 and the zero Chain, with the EndLSN that its WAL is read from.
type Position struct {
	Incarnation uint32
	Number      uint64
	EndLSN      wal.LSN
	Chain       [32]byte
	// Mark is the newest transaction published up to here; see Header.
	Mark wal.Mark
	// Open: the last packet ended inside a transaction. Only the encoder that cut it can
	// continue there; anyone else begins a new incarnation.
	Open bool
}

// Frame is one message, ready to publish. Data belongs to the caller.
type Frame struct {
	Header Header
	Data   []byte
	MsgID  string
}

// Encoder turns transactions into frames. It belongs to one goroutine.
type Encoder struct {
	cfg     EncoderConfig
	pos     Position
	packet  builder
	scratch []byte // for compression
}

// NewEncoder returns an encoder whose first frame follows at.
func NewEncoder(cfg EncoderConfig, at Position) *Encoder {
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = DefaultMaxFrame
	}
	cfg.MaxFrame = min(cfg.MaxFrame, MaxPayload)
	if cfg.MaxPacket <= 0 {
		cfg.MaxPacket = DefaultMaxPacket
	}
	return &Encoder{cfg: cfg, pos: at}
}

// Add appends tx to the packet being built. It copies what it needs; the relations must
// stay unmodified. On an error the packet is as before: ErrMalformed for a transaction that
// breaks the rules of package wal, ErrTooLarge when the packet would exceed MaxPacket or
// MaxParsed (cut first; a transaction alone that is too large has to come in parts).
func (e *Encoder) Add(tx *wal.Transaction) error {
	return e.packet.add(tx, e.cfg.MaxPacket)
}

// Size is the payload of the packet being built, in bytes before compression. A packet of very
// many small elements counts as full before that: what it takes in memory is bounded too.
func (e *Encoder) Size() int {
	if e.packet.cost() >= fullAt {
		return max(e.packet.size(), MaxPayload)
	}
	return e.packet.size()
}

// Len is the number of transactions and parts in the packet being built.
func (e *Encoder) Len() int { return int(e.packet.transactions) }

// Position is the place after the last frame that was cut.
func (e *Encoder) Position() Position { return e.pos }

// Cut finishes the packet and returns its frames in the order in which they must be
// published. endLSN is the position that is complete once the packet is applied; a lower one
// than the last, such as 0 in the middle of a transaction, repeats the last. Of flags only
// openingFlags matter, on the first frame of an incarnation; open such an incarnation with a
// heartbeat, so that the frame with the flag is a packet of its own. An empty packet makes
// one frame without payload. now is the origin's clock.
func (e *Encoder) Cut(kind Kind, flags Flags, endLSN wal.LSN, now wal.Micros) []Frame {
	var frames []Frame
	for f := range e.CutSeq(kind, flags, endLSN, now) {
		frames = append(frames, f)
	}
	return frames
}

// CutSeq is Cut with one frame in memory at a time, for packets of many fragments. The
// sequence can be used once. Who stops early abandons the packet: the position stays after
// the last frame taken, and readers drop what they have of the packet when the next begins.
func (e *Encoder) CutSeq(kind Kind, flags Flags, endLSN wal.LSN, now wal.Micros) iter.Seq[Frame] {
	return func(yield func(Frame) bool) {
		defer e.packet.reset()
		payload := e.packet.finish()
		h := Header{
			Version: Version, Kind: kind, Cluster: e.cfg.Cluster, Origin: e.cfg.Origin, Epoch: e.cfg.Epoch,
			SentAt: now, PacketSize: uint64(len(payload)),
		}
		room := e.cfg.MaxFrame - headerLen(&h)
		if e.cfg.Sign != nil {
			room -= ed25519.SignatureSize
		}
		room = max(room, minFragment)
		for first := true; first || len(payload) > 0; first = false {
			part := payload[:min(room, len(payload))]
			payload = payload[len(part):]
			h.Flags, h.EndLSN, h.Mark = 0, e.pos.EndLSN, e.pos.Mark
			open := e.pos.Open
			if first {
				h.Flags |= First
			}
			if e.pos.Number == 0 {
				h.Flags |= NewIncarnation | flags&openingFlags
			}
			if len(payload) == 0 {
				h.Flags |= Last
				h.EndLSN = max(h.EndLSN, endLSN)
				h.Transactions, h.Changes = e.packet.transactions, e.packet.changes
				h.FirstCommit, h.LastCommit = e.packet.first, e.packet.latest
				if kind == Data && e.packet.transactions > 0 {
					open = e.packet.open
					if e.packet.mark != (wal.Mark{}) {
						h.Mark = e.packet.mark
					}
				}
			}
			if open {
				h.Flags |= Open
			}
			f := e.frame(h, part)
			h.Fragment++
			if !yield(f) {
				return
			}
		}
	}
}

// frame seals one fragment and moves the position behind it.
func (e *Encoder) frame(h Header, part []byte) Frame {
	h.Incarnation, h.Number = e.pos.Incarnation, e.pos.Number+1
	h.PrevEndLSN, h.PrevChain = e.pos.EndLSN, e.pos.Chain
	h.PayloadSize = uint32(len(part))
	stored := part
	if e.cfg.Compress && len(part) > 0 {
		if n := s2.MaxEncodedLen(len(part)); cap(e.scratch) < n {
			e.scratch = make([]byte, n)
		}
		if packed := s2.Encode(e.scratch[:cap(e.scratch)], part); len(packed) < len(part) {
			stored = packed
			h.Flags |= Compressed
		}
	}
	sig := 0
	if e.cfg.Sign != nil {
		sig = ed25519.SignatureSize
		h.Flags |= Signed
	}
	hlen := headerLen(&h)
	data := make([]byte, hlen+len(stored), hlen+len(stored)+sig)
	putHeader(data[:hlen], &h, len(stored), sig)
	copy(data[hlen:], stored)
	be.PutUint32(data[offCRC:], frameCRC(data))
	h.Chain = frameChain(data[:hlen])
	copy(data[offChain:], h.Chain[:])
	if sig > 0 {
		data = append(data, e.cfg.Sign(data)...)
	}
	e.pos = h.Position()
	return Frame{Header: h, Data: data, MsgID: h.MsgID()}
}
