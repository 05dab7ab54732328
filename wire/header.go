package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Version is the format version that this package writes, and the only one it reads.
const Version = 1

// MaxPayload is the largest payload of one frame, in bytes after decompression. A frame that
// declares more is refused before anything is allocated.
const MaxPayload = 8 << 20

// Kind says what a frame's packet is for.
type Kind uint8

const (
	Data      Kind = 1 // transactions of the origin's WAL, in commit order; repairs and notices are in them
	Heartbeat Kind = 2 // no transactions: proves that the WAL is read up to EndLSN
	Copy      Kind = 3 // rows of an initial copy; EndLSN does not advance
)

// String returns the word used in logs and status.
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Heartbeat:
		return "heartbeat"
	case Copy:
		return "copy"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Flags of a frame. Unknown bits are refused.
type Flags uint16

const (
	First          Flags = 1 << 0 // first fragment of its packet
	Last           Flags = 1 << 1 // last fragment of its packet; its EndLSN counts
	Compressed     Flags = 1 << 2 // the stored payload is one S2 block
	Signed         Flags = 1 << 3 // an ed25519 signature follows the payload
	Resync         Flags = 1 << 4 // an incarnation that admits a gap before PrevEndLSN
	NewIncarnation Flags = 1 << 5 // the incarnation's first frame (Number 1)
	Open           Flags = 1 << 6 // the packets up to this frame end inside a transaction
	Resumed        Flags = 1 << 7 // an incarnation that begins where the stream's last whole transaction ends
	// Newcomers: who has applied nothing of the origin may begin here. Its tables are copied behind it.
	Newcomers Flags = 1 << 8
	// SameWAL, with Resync: the gap is one of some peers. Who has applied what lies before goes on.
	SameWAL Flags = 1 << 9

	knownFlags = First | Last | Compressed | Signed | Resync | NewIncarnation | Open | Resumed | Newcomers | SameWAL
)

// openingFlags may stand on the first frame of an incarnation only.
const openingFlags = Resync | Resumed | Newcomers | SameWAL

// Has reports whether all bits of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// String lists the flags, for example first,last,s2.
func (f Flags) String() string {
	var words []string
	for i, w := range [...]string{"first", "last", "s2", "signed", "resync", "new", "open", "resumed", "newcomers", "same-wal"} {
		if f&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	if rest := f &^ knownFlags; rest != 0 {
		words = append(words, fmt.Sprintf("0x%x", uint16(rest)))
	}
	return strings.Join(words, ",")
}

// Header is what a frame says of itself.
type Header struct {
	Version         uint8
	Kind            Kind
	Flags           Flags
	Cluster, Origin string
	Epoch           wal.Epoch
	// Incarnation counts the restarts of the frame numbering of one origin, from 1; Number
	// counts the frames of the incarnation, from 1.
	Incarnation uint32
	Number      uint64
	// PrevEndLSN is the EndLSN of the frame before, or the start position of the
	// incarnation. EndLSN is the position that is complete once this frame is applied; a
	// frame that completes no position repeats PrevEndLSN.
	PrevEndLSN, EndLSN wal.LSN
	// Mark is the newest transaction that the incarnation holds up to this frame, or one
	// before its start that the origin knew; zero when there is none.
	Mark wal.Mark
	// FirstCommit and LastCommit are the range of commit times in the packet, SentAt the
	// origin's clock when it was cut; the commit times are 0 without transactions. On
	// fragments but the last, they and the counts are 0.
	FirstCommit, LastCommit wal.Micros
	SentAt                  wal.Micros
	// Transactions counts transactions and parts, Changes their changes.
	Transactions, Changes uint32
	PrevChain, Chain      [32]byte
	PayloadSize           uint32 // of this fragment, uncompressed
	Fragment              uint32 // place in the packet, from 0
	PacketSize            uint64 // payload of all fragments together, uncompressed
}

// MsgID is the deduplication id of the frame: <origin>/<systemid>.<timeline>/<incarnation>/<number>.
func (h *Header) MsgID() string {
	return fmt.Sprintf("%s/%d.%d/%d/%d", h.Origin, h.Epoch.SystemID, h.Epoch.Timeline, h.Incarnation, h.Number)
}

// Position is the place after the frame: an Encoder that starts there continues the chain.
func (h *Header) Position() Position {
	return Position{Incarnation: h.Incarnation, Number: h.Number, EndLSN: h.EndLSN, Chain: h.Chain, Mark: h.Mark, Open: h.Flags.Has(Open)}
}

// Byte places of the fixed part; big-endian throughout.
const (
	magic = "PGWZ"

	offVersion   = 4
	offKind      = 5
	offFlags     = 6
	offCRC       = 8
	offHeaderLen = 12
	offStoredLen = 16
	offRawLen    = 20
	offSigLen    = 24
	offReserved  = 26
	offIncarn    = 28
	offNumber    = 32
	offPrevEnd   = 40
	offEnd       = 48
	offFirstTime = 56
	offLastTime  = 64
	offSentAt    = 72
	offTxs       = 80
	offChanges   = 84
	offSystemID  = 88
	offTimeline  = 96
	offFragment  = 100
	offPacketLen = 104
	offMarkEnd   = 112
	offMarkTime  = 120
	offMarkXID   = 128
	offPrevChain = 132
	offChain     = 164
	fixedLen     = 196

	maxName = 1 << 10 // a cluster, region or slot name; PostgreSQL and NATS allow far less
)

var be = binary.BigEndian

// headerLen is the encoded size of h.
func headerLen(h *Header) int {
	return fixedLen + 6 + len(h.Cluster) + len(h.Origin) + len(h.Epoch.Slot)
}

// putHeader writes h into dst, which has headerLen(h) bytes; crc and chain stay zero.
func putHeader(dst []byte, h *Header, stored, sig int) {
	copy(dst, magic)
	dst[offVersion] = h.Version
	dst[offKind] = byte(h.Kind)
	be.PutUint16(dst[offFlags:], uint16(h.Flags))
	be.PutUint32(dst[offHeaderLen:], uint32(len(dst)))
	be.PutUint32(dst[offStoredLen:], uint32(stored))
	be.PutUint32(dst[offRawLen:], h.PayloadSize)
	be.PutUint16(dst[offSigLen:], uint16(sig))
	be.PutUint32(dst[offIncarn:], h.Incarnation)
	be.PutUint64(dst[offNumber:], h.Number)
	be.PutUint64(dst[offPrevEnd:], uint64(h.PrevEndLSN))
	be.PutUint64(dst[offEnd:], uint64(h.EndLSN))
	be.PutUint64(dst[offFirstTime:], uint64(h.FirstCommit))
	be.PutUint64(dst[offLastTime:], uint64(h.LastCommit))
	be.PutUint64(dst[offSentAt:], uint64(h.SentAt))
	be.PutUint32(dst[offTxs:], h.Transactions)
	be.PutUint32(dst[offChanges:], h.Changes)
	be.PutUint64(dst[offSystemID:], h.Epoch.SystemID)
	be.PutUint32(dst[offTimeline:], h.Epoch.Timeline)
	be.PutUint32(dst[offFragment:], h.Fragment)
	be.PutUint64(dst[offPacketLen:], h.PacketSize)
	be.PutUint64(dst[offMarkEnd:], uint64(h.Mark.EndLSN))
	be.PutUint64(dst[offMarkTime:], uint64(h.Mark.CommitTime))
	be.PutUint32(dst[offMarkXID:], uint32(h.Mark.XID))
	copy(dst[offPrevChain:], h.PrevChain[:])
	at := dst[fixedLen:]
	for _, s := range [...]string{h.Cluster, h.Origin, h.Epoch.Slot} {
		be.PutUint16(at, uint16(len(s)))
		at = at[2+copy(at[2:], s):]
	}
}

// getHeader reads the header from the headerLen bytes of src. Lengths were checked against
// the message, so only the names can be out of range.
func getHeader(src []byte) (Header, error) {
	h := Header{
		Version:      src[offVersion],
		Kind:         Kind(src[offKind]),
		Flags:        Flags(be.Uint16(src[offFlags:])),
		Epoch:        wal.Epoch{SystemID: be.Uint64(src[offSystemID:]), Timeline: be.Uint32(src[offTimeline:])},
		Incarnation:  be.Uint32(src[offIncarn:]),
		Number:       be.Uint64(src[offNumber:]),
		PrevEndLSN:   wal.LSN(be.Uint64(src[offPrevEnd:])),
		EndLSN:       wal.LSN(be.Uint64(src[offEnd:])),
		FirstCommit:  wal.Micros(be.Uint64(src[offFirstTime:])),
		LastCommit:   wal.Micros(be.Uint64(src[offLastTime:])),
		SentAt:       wal.Micros(be.Uint64(src[offSentAt:])),
		Transactions: be.Uint32(src[offTxs:]),
		Changes:      be.Uint32(src[offChanges:]),
		PayloadSize:  be.Uint32(src[offRawLen:]),
		Fragment:     be.Uint32(src[offFragment:]),
		PacketSize:   be.Uint64(src[offPacketLen:]),
		Mark: wal.Mark{
			EndLSN: wal.LSN(be.Uint64(src[offMarkEnd:])), CommitTime: wal.Micros(be.Uint64(src[offMarkTime:])), XID: wal.XID(be.Uint32(src[offMarkXID:])),
		},
	}
	copy(h.PrevChain[:], src[offPrevChain:])
	copy(h.Chain[:], src[offChain:])
	at := src[fixedLen:]
	for _, s := range [...]*string{&h.Cluster, &h.Origin, &h.Epoch.Slot} {
		if len(at) < 2 {
			return h, malformed("header ends inside its names")
		}
		n := int(be.Uint16(at))
		if n > maxName || n > len(at)-2 {
			return h, malformed("header ends inside its names")
		}
		*s = string(at[2 : 2+n])
		at = at[2+n:]
	}
	if len(at) != 0 {
		return h, malformed("%d bytes follow the header's names", len(at))
	}
	return h, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeros [32]byte

// frameCRC is the CRC-32C of header and stored payload, with the crc and the chain taken as
// zero: the chain covers the crc, so the crc cannot cover the chain.
func frameCRC(msg []byte) uint32 {
	c := crc32.Update(0, castagnoli, msg[:offCRC])
	c = crc32.Update(c, castagnoli, zeros[:4])
	c = crc32.Update(c, castagnoli, msg[offHeaderLen:offChain])
	c = crc32.Update(c, castagnoli, zeros[:])
	return crc32.Update(c, castagnoli, msg[fixedLen:])
}

// frameChain is SHA-256 over the previous chain and the header, with the crc in its place
// and the chain taken as zero.
func frameChain(header []byte) [32]byte {
	var room [1024]byte
	b := append(room[:0], header[offPrevChain:offPrevChain+32]...)
	b = append(b, header[:offChain]...)
	b = append(b, zeros[:]...)
	b = append(b, header[fixedLen:]...)
	return sha256.Sum256(b)
}
