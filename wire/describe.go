package wire

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Describe prints what a message's header says, and what is wrong with the message, on one
// line per topic. It holds no row values and works on damaged bytes too; for logs, the
// quarantine and debugging.
func Describe(data []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "message of %d bytes", len(data))
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		b.WriteString(": not a pgwaltz frame\n")
		return b.String()
	}
	f, err := Parse(data)
	if err != nil {
		fmt.Fprintf(&b, ": %v\n", err)
	} else {
		b.WriteString(": intact\n")
	}
	if len(data) < fixedLen || data[offVersion] != Version {
		return b.String()
	}
	h, stored := Header{}, be.Uint32(data[offStoredLen:])
	if f != nil {
		h = f.Header
	} else if n := int(be.Uint32(data[offHeaderLen:])); n >= fixedLen && n <= len(data) {
		// What a damaged header says is still the best clue there is.
		h, _ = getHeader(data[:n])
	} else {
		return b.String()
	}
	fmt.Fprintf(&b, "frame   %s v%d %s [%s]\n", printable(h.MsgID()), h.Version, h.Kind, h.Flags)
	fmt.Fprintf(&b, "from    cluster %s origin %s epoch %s\n", printable(h.Cluster), printable(h.Origin), printable(h.Epoch.String()))
	fmt.Fprintf(&b, "covers  %s to %s\n", h.PrevEndLSN, h.EndLSN)
	fmt.Fprintf(&b, "times   commits %s to %s, sent %s\n", h.FirstCommit, h.LastCommit, h.SentAt)
	fmt.Fprintf(&b, "holds   %d transactions, %d changes\n", h.Transactions, h.Changes)
	fmt.Fprintf(&b, "payload %d bytes stored as %d, fragment %d of a packet of %d\n", h.PayloadSize, stored, h.Fragment, h.PacketSize)
	fmt.Fprintf(&b, "crc     %08x\n", be.Uint32(data[offCRC:]))
	fmt.Fprintf(&b, "chain   %s after %s\n", hex.EncodeToString(h.Chain[:8]), hex.EncodeToString(h.PrevChain[:8]))
	return b.String()
}

// HeaderOf returns the bytes of a message's header, which hold no row values; none of a message
// that is no frame.
func HeaderOf(data []byte) []byte {
	if len(data) < fixedLen || string(data[:len(magic)]) != magic {
		return nil
	}
	n := int(be.Uint32(data[offHeaderLen:]))
	if n < fixedLen || n > len(data) || n > fixedLen+3*(2+maxName) {
		return nil
	}
	if _, err := getHeader(data[:n]); err != nil {
		return nil
	}
	return data[:n:n]
}

// printable keeps a damaged name from writing control characters to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
