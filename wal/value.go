package wal

import (
	"bytes"
	"crypto/sha256"
)

// Kind says in which form a value travels.
type Kind byte

const (
	// Null is SQL NULL.
	Null Kind = 'n'
	// Unchanged is a TOASTed value that the update did not touch and the WAL does not
	// hold. It must never become NULL and never be filled from another region's row.
	Unchanged Kind = 'u'
	// Digest is such a value, too; Bytes is the SHA-256 of its text at the origin. Who has a
	// row with the same value may keep it.
	Digest Kind = 'd'
	// Text is the output of the type's output function under the pinned settings.
	Text Kind = 't'
	// Binary is the output of the type's send function.
	Binary Kind = 'b'
)

// Value is one column of a tuple. Bytes is nil for Null and Unchanged.
type Value struct {
	Kind  Kind
	Bytes []byte
}

// Tuple is a row image in the column order of its Relation. In a key-only old tuple the
// columns outside of the replica identity are Null.
type Tuple []Value

// Size is the number of payload bytes that the tuple holds.
func (t Tuple) Size() int {
	n := 0
	for i := range t {
		n += len(t[i].Bytes)
	}
	return n
}

// Absent reports whether the value itself is not here.
func (v Value) Absent() bool { return v.Kind == Unchanged || v.Kind == Digest }

// Digested is the digest of a text value.
func Digested(text []byte) Value {
	sum := sha256.Sum256(text)
	return Value{Kind: Digest, Bytes: sum[:]}
}

// Names reports whether a digest is that of the text value o, or the same digest.
func (v Value) Names(o Value) bool {
	switch {
	case v.Kind != Digest:
		return false
	case o.Kind == Text:
		return bytes.Equal(v.Bytes, Digested(o.Bytes).Bytes)
	}
	return o.Kind == Digest && bytes.Equal(v.Bytes, o.Bytes)
}

// Complete reports whether no value is absent.
func (t Tuple) Complete() bool {
	for i := range t {
		if t[i].Absent() {
			return false
		}
	}
	return true
}

// CompleteOver reports whether an image lacks nothing beside the row that is there: what is absent
// is named by its digest, and the row has it. Without a row that is Complete.
func (t Tuple) CompleteOver(row Tuple) bool {
	for i := range t {
		if t[i].Absent() && (i >= len(row) || !t[i].Names(row[i])) {
			return false
		}
	}
	return true
}

// Filled returns the image with its absent values taken from the one before it, a digest only
// where it names the value there; the image itself when none is absent. The result shares the
// values' bytes.
func (t Tuple) Filled(before Tuple) Tuple {
	if t.Complete() || len(t) != len(before) {
		return t
	}
	out := make(Tuple, len(t))
	copy(out, t)
	for i := range out {
		if out[i].Kind == Unchanged || out[i].Names(before[i]) {
			out[i] = before[i]
		}
	}
	return out
}
