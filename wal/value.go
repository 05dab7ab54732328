package wal

// Kind says in which form a value travels.
type Kind byte

const (
	// Null is SQL NULL.
	Null Kind = 'n'
	// Unchanged is a TOASTed value that the update did not touch and the log does not
	// hold. It must never become NULL and never be filled from another region's row.
	Unchanged Kind = 'u'
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

// Complete reports whether no column is Unchanged.
func (t Tuple) Complete() bool {
	for i := range t {
		if t[i].Kind == Unchanged {
			return false
		}
	}
	return true
}

// Filled returns the image with its unchanged values taken from the one before it; the image
// itself when there are none. The result shares the values' bytes.
func (t Tuple) Filled(before Tuple) Tuple {
	if t.Complete() || len(t) != len(before) {
		return t
	}
	out := make(Tuple, len(t))
	copy(out, t)
	for i := range out {
		if out[i].Kind == Unchanged {
			out[i] = before[i]
		}
	}
	return out
}
