package wire

import (
	"encoding/binary"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A stamp is one form byte and what the form calls for. The places of NULL and infinity
// cost nothing, and a time near the commit time two or three bytes.
const (
	timeMin   = 0 // NULL, missing or -infinity
	timeMax   = 1 // infinity
	timeDelta = 2 // zigzag varint, added to the transaction's commit time (wrapping)
	timeAbs   = 3 // 8 bytes
	timeMask  = 3

	versionNull   = 0 << 2
	versionMax    = 1 << 2
	versionVarint = 2 << 2 // zigzag varint
	versionMask   = 3 << 2

	hasGeneration = 1 << 4 // uvarint; absent means 0

	stampForms = timeMask | versionMask | hasGeneration
)

// maxDelta keeps the delta form shorter than the absolute one.
const maxDelta = 1 << 47

func appendStamp(b []byte, s wal.Stamp, commit wal.Micros) []byte {
	at := len(b)
	b = append(b, 0)
	form := byte(0)
	if s.Generation != 0 {
		form |= hasGeneration
		b = binary.AppendUvarint(b, uint64(s.Generation))
	}
	switch s.Version {
	case wal.NullVersion:
		form |= versionNull
	case wal.MaxVersion:
		form |= versionMax
	default:
		form |= versionVarint
		b = binary.AppendVarint(b, s.Version)
	}
	switch delta := int64(s.UpdatedAt) - int64(commit); {
	case s.UpdatedAt == wal.MinMicros:
		form |= timeMin
	case s.UpdatedAt == wal.MaxMicros:
		form |= timeMax
	case -maxDelta < delta && delta < maxDelta:
		form |= timeDelta
		b = binary.AppendVarint(b, delta)
	default:
		form |= timeAbs
		b = be.AppendUint64(b, uint64(s.UpdatedAt))
	}
	b[at] = form
	return b
}

func (r *reader) stamp(commit wal.Micros) wal.Stamp {
	form := r.byte()
	if form&^stampForms != 0 {
		r.fail("stamp form 0x%x", form)
		return wal.Stamp{}
	}
	var s wal.Stamp
	if form&hasGeneration != 0 {
		s.Generation = r.uint32("generation")
	}
	switch form & versionMask {
	case versionNull:
		s.Version = wal.NullVersion
	case versionMax:
		s.Version = wal.MaxVersion
	case versionVarint:
		s.Version = r.varint()
	default:
		r.fail("stamp form 0x%x", form)
	}
	switch form & timeMask {
	case timeMin:
		s.UpdatedAt = wal.MinMicros
	case timeMax:
		s.UpdatedAt = wal.MaxMicros
	case timeDelta:
		s.UpdatedAt = wal.Micros(int64(commit) + r.varint())
	case timeAbs:
		s.UpdatedAt = wal.Micros(r.uint64())
	}
	return s
}
