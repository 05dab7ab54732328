package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the write-ahead log of one server and timeline. Positions of
// two servers must never be compared; Epoch says which WAL a position belongs to.
type LSN uint64

// XID is a transaction id as it stands in the WAL of its origin.
type XID uint32

// String prints the position the way PostgreSQL does, for example 0/16B3748.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads the form that String prints.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want the form 0/16B3748", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: want the form 0/16B3748", s)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: want the form 0/16B3748", s)
	}
	return LSN(h<<32 | l), nil
}

// Epoch names one continuous WAL: positions are comparable only inside one epoch.
// SystemID and Timeline come from IDENTIFY_SYSTEM, Slot is the name of the slot that
// the WAL is read through.
type Epoch struct {
	SystemID uint64
	Timeline uint32
	Slot     string
}

// SameWAL reports whether positions of both epochs may be compared. The slot does not
// matter for that: two slots of one server read one WAL.
func (e Epoch) SameWAL(o Epoch) bool {
	return e.SystemID == o.SystemID && e.Timeline == o.Timeline
}

// String prints the epoch for logs and status, for example 7301234567890123456/1/pgwaltz_eu.
func (e Epoch) String() string {
	return fmt.Sprintf("%d/%d/%s", e.SystemID, e.Timeline, e.Slot)
}
