package conflict

import (
	"bytes"
	"cmp"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Order says which part of a stamp counts first within one generation.
type Order uint8

const (
	// VersionFirst compares version, then updated_at: the side with more edits wins.
	VersionFirst Order = iota
	// TimeFirst compares updated_at, then version: the later clock wins.
	TimeFirst
)

// String returns the word that the configuration uses.
func (o Order) String() string {
	if o == TimeFirst {
		return "time"
	}
	return "version"
}

// Policy is what can be chosen for one table. Every region must choose the same for the
// same table; the zero Policy compares versions first and never forgets a tombstone.
type Policy struct {
	Order Order
	// ForgetAfter is in microseconds: an insert that was committed this much later than
	// the deletion starts the key anew, although its origin no longer had the tombstone.
	// 0 turns the rule off. It must be shorter than the age at which any region collects
	// tombstones and longer than any outage after which a region goes on streaming
	// instead of copying anew; otherwise the rule is not symmetric and regions differ.
	ForgetAfter wal.Micros
	// MaxSkew is in microseconds: how far a stamp may lie ahead before Skewed says so.
	// 0 turns it off.
	MaxSkew wal.Micros
}

// Compare returns -1, 0 or +1. It is a total order of stamps for each Order; 0 means that
// all three parts are equal.
func (p Policy) Compare(a, b wal.Stamp) int {
	if c := cmp.Compare(a.Generation, b.Generation); c != 0 {
		return c
	}
	if p.Order == TimeFirst {
		if c := cmp.Compare(a.UpdatedAt, b.UpdatedAt); c != 0 {
			return c
		}
		return cmp.Compare(a.Version, b.Version)
	}
	if c := cmp.Compare(a.Version, b.Version); c != 0 {
		return c
	}
	return cmp.Compare(a.UpdatedAt, b.UpdatedAt)
}

// CompareSides is the whole order of two known entries: the stamps, then alive over dead,
// then the contents bytewise. Two dead entries with the same stamp are equal.
func (p Policy) CompareSides(a, b Side) int {
	if c := p.Compare(a.Stamp, b.Stamp); c != 0 {
		return c
	}
	switch {
	case a.Alive != b.Alive:
		if a.Alive {
			return 1
		}
		return -1
	case !a.Alive:
		return 0
	}
	return bytes.Compare(a.Content, b.Content)
}

// Skewed reports whether a stamp lies more than MaxSkew ahead of at, which is the commit
// time of its transaction or the receiver's clock. Such a stamp is merged like any other
// (leaving it out would lose the write); it is reported with the type ClockSkew. Infinity
// is always ahead, and so is the highest version, which nothing but a new generation beats.
func (p Policy) Skewed(s wal.Stamp, at wal.Micros) bool {
	if p.MaxSkew <= 0 || s.UpdatedAt == wal.MinMicros {
		return false
	}
	return s.UpdatedAt == wal.MaxMicros || s.UpdatedAt > addMicros(at, p.MaxSkew)
}

// decidedBy names the first part of the order in which the two stamps differ.
func (p Policy) decidedBy(a, b wal.Stamp) Reason {
	switch {
	case a.Generation != b.Generation:
		return ByGeneration
	case p.Order == TimeFirst && a.UpdatedAt != b.UpdatedAt:
		return ByUpdatedAt
	case a.Version != b.Version:
		return ByVersion
	case a.UpdatedAt != b.UpdatedAt:
		return ByUpdatedAt
	}
	return ByContent
}

// addMicros adds without wrapping; the infinities stay where they are.
func addMicros(a, b wal.Micros) wal.Micros {
	if a == wal.MinMicros || a == wal.MaxMicros {
		return a
	}
	s := a + b
	if b > 0 && s < a {
		return wal.MaxMicros
	}
	if b < 0 && s > a {
		return wal.MinMicros
	}
	return s
}
