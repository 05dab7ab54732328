package wire

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// RawFrame is a checked frame whose payload is not parsed yet.
type RawFrame struct {
	Header
	// Payload is this fragment's part of the packet, uncompressed. It aliases the message
	// unless the frame was compressed, so the message must stay unmodified.
	Payload []byte

	body []byte // what the signature covers
	sig  []byte
}

// Parse checks a message (lengths, version, CRC, chain over itself, kind, flags) and
// decompresses its payload. It does not know which frame is due: that is
// checkpoint.Checkpoint.Check. It never panics and allocates at most MaxPayload bytes.
//
// Errors: ErrNotFrame, ErrVersion, ErrTruncated, ErrTooLarge, ErrCRC, ErrKind, ErrMalformed.
func Parse(data []byte) (*RawFrame, error) {
	f, stored, err := parseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("parse frame: %w", err)
	}
	if !f.Flags.Has(Compressed) {
		if len(stored) != int(f.PayloadSize) {
			return nil, fmt.Errorf("parse frame: %w", malformed("payload sizes differ without compression"))
		}
		f.Payload = stored
		return f, nil
	}
	// The block states its own size; it must be the checked one before Decode allocates.
	n, err := s2.DecodedLen(stored)
	if err != nil {
		return nil, fmt.Errorf("parse frame: %w", malformed("no compressed block"))
	}
	if n != int(f.PayloadSize) {
		return nil, fmt.Errorf("parse frame: %w: block unpacks to %d bytes, the header says %d", ErrTooLarge, n, f.PayloadSize)
	}
	f.Payload, err = s2.Decode(nil, stored)
	if err != nil {
		return nil, fmt.Errorf("parse frame: %w", malformed("damaged compressed block"))
	}
	return f, nil
}

// ParseHeader is Parse without the payload: for a publisher that looks up its stream's last
// frame. The same checks are made, but for those of the compressed block.
func ParseHeader(data []byte) (Header, error) {
	f, _, err := parseHeader(data)
	if err != nil {
		return Header{}, fmt.Errorf("parse frame header: %w", err)
	}
	return f.Header, nil
}

// parseHeader returns the frame without Payload, and the stored payload.
func parseHeader(data []byte) (*RawFrame, []byte, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, nil, ErrNotFrame
	}
	if len(data) <= offVersion {
		return nil, nil, ErrTruncated
	}
	// The version comes before everything else: of another one, not even the lengths are known.
	if v := data[offVersion]; v != Version {
		return nil, nil, &VersionError{Got: v}
	}
	if len(data) < fixedLen {
		return nil, nil, ErrTruncated
	}
	hlen, stored := uint64(be.Uint32(data[offHeaderLen:])), uint64(be.Uint32(data[offStoredLen:]))
	sig := uint64(be.Uint16(data[offSigLen:]))
	if raw := be.Uint32(data[offRawLen:]); raw > MaxPayload || stored > MaxPayload {
		return nil, nil, fmt.Errorf("%w: payload of %d bytes, the limit is %d", ErrTooLarge, max(uint64(raw), stored), MaxPayload)
	}
	if hlen < fixedLen || hlen > fixedLen+3*(2+maxName) {
		return nil, nil, malformed("header length %d", hlen)
	}
	switch total := hlen + stored + sig; {
	case uint64(len(data)) < total:
		return nil, nil, fmt.Errorf("%w: %d bytes of %d", ErrTruncated, len(data), total)
	case uint64(len(data)) > total:
		return nil, nil, malformed("%d bytes follow the frame", uint64(len(data))-total)
	}
	body := data[: hlen+stored : hlen+stored]
	if frameCRC(body) != be.Uint32(data[offCRC:]) {
		return nil, nil, ErrCRC
	}
	chain := frameChain(body[:hlen])
	if !bytes.Equal(chain[:], body[offChain:offChain+32]) {
		return nil, nil, fmt.Errorf("%w: chain", ErrCRC)
	}
	h, err := getHeader(body[:hlen])
	if err != nil {
		return nil, nil, err
	}
	if err := checkHeader(&h, be.Uint16(data[offReserved:]), int(sig)); err != nil {
		return nil, nil, err
	}
	return &RawFrame{Header: h, body: body, sig: data[hlen+stored:]}, body[hlen:], nil
}

// checkHeader holds an intact header against the rules.
func checkHeader(h *Header, reserved uint16, sig int) error {
	switch {
	case h.Kind < Data || h.Kind > Copy:
		return &KindError{Got: h.Kind}
	case h.Flags&^knownFlags != 0 || reserved != 0:
		return malformed("unknown flags 0x%x", uint16(h.Flags))
	case h.Flags.Has(Signed) != (sig != 0) || (sig != 0 && sig != ed25519.SignatureSize):
		return malformed("signature of %d bytes", sig)
	case h.Incarnation == 0 || h.Number == 0:
		return malformed("incarnation %d, number %d", h.Incarnation, h.Number)
	case h.Flags.Has(NewIncarnation) != (h.Number == 1), h.Flags&openingFlags != 0 && h.Number != 1,
		h.Flags.Has(SameWAL) && !h.Flags.Has(Resync):
		return malformed("flags %s on frame number %d", h.Flags, h.Number)
	case h.Number == 1 && h.PrevChain != [32]byte{}:
		return malformed("the first frame of an incarnation has a previous chain")
	case h.EndLSN < h.PrevEndLSN:
		return malformed("end %s is below the previous end %s", h.EndLSN, h.PrevEndLSN)
	case !h.Flags.Has(Last) && h.EndLSN != h.PrevEndLSN:
		return malformed("an unfinished packet moves the position")
	case h.Flags.Has(First) != (h.Fragment == 0):
		return malformed("flags %s on fragment %d", h.Flags, h.Fragment)
	case uint64(h.PayloadSize) > h.PacketSize,
		h.Flags.Has(First|Last) && uint64(h.PayloadSize) != h.PacketSize:
		return malformed("fragment of %d bytes in a packet of %d", h.PayloadSize, h.PacketSize)
	}
	return nil
}

// Verify checks the signature by the origin's public key. A frame without one is refused:
// call it only where a key is configured. Errors: ErrSignature.
func (f *RawFrame) Verify(pub ed25519.PublicKey) error {
	switch {
	case len(pub) != ed25519.PublicKeySize:
		return fmt.Errorf("verify frame %s: %w: no public key of %d bytes", f.MsgID(), ErrSignature, ed25519.PublicKeySize)
	case !f.Flags.Has(Signed):
		return fmt.Errorf("verify frame %s: %w: it is not signed", f.MsgID(), ErrSignature)
	case !ed25519.Verify(pub, f.body, f.sig):
		return fmt.Errorf("verify frame %s: %w", f.MsgID(), ErrSignature)
	}
	return nil
}
