package conflict

import (
	"bytes"
	"crypto/sha256"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The markers of the content encoding. A value is ended by 0x00 0x01; a zero byte within
// it is 0x00 0xFF, so that a value sorts below its own continuations.
const (
	markNull  = 0x01
	markValue = 0x02
	markEnd   = 0x01
	markZero  = 0xFF
)

// Content returns the canonical encoding of an image: its columns in the order of their
// names, each with name and value, self-delimiting and order-preserving. Two images of the
// same columns compare bytewise like their first differing column; NULL is below any value.
//
// The values must be in text form under the pinned settings; binary values of the types
// that wal.AppendText knows are converted. It reports false when a value has no text form
// here (another binary type) or is absent.
func Content(rel *wal.Relation, t wal.Tuple) ([]byte, bool) {
	return AppendContent(make([]byte, 0, 16*len(t)+t.Size()), rel, t)
}

// AppendContent appends what Content returns to dst.
func AppendContent(dst []byte, rel *wal.Relation, t wal.Tuple) ([]byte, bool) {
	if len(t) != len(rel.Columns) {
		return dst, false
	}
	var room [64]int
	for _, i := range byName(room[:0], rel.Columns) {
		dst = appendEscaped(dst, []byte(rel.Columns[i].Name))
		if t[i].Kind == wal.Null {
			dst = append(dst, markNull)
			continue
		}
		dst = append(dst, markValue)
		if t[i].Kind == wal.Text {
			dst = appendEscaped(dst, t[i].Bytes)
			continue
		}
		var raw [64]byte
		text, ok := wal.AppendText(raw[:0], rel.Columns[i].OID, t[i])
		if !ok {
			return dst, false
		}
		dst = appendEscaped(dst, text)
	}
	return dst, true
}

// Differing returns the columns in which two rows differ, or of which that is not known, because a value is absent or has no text form here.
func Differing(rel *wal.Relation, a, b wal.Tuple) (columns []int) {
	for i := range rel.Columns {
		one := &wal.Relation{Columns: rel.Columns[i : i+1]}
		left, ok := Content(one, a[i:i+1])
		right, known := Content(one, b[i:i+1])
		if !ok || !known || !bytes.Equal(left, right) {
			columns = append(columns, i)
		}
	}
	return columns
}

// byName appends the positions of the columns in the order of their names. Tables are
// narrow and mostly near some order already; an insertion sort does not allocate.
func byName(dst []int, cols []wal.Column) []int {
	for i := range cols {
		dst = append(dst, i)
		for j := len(dst) - 1; j > 0 && cols[dst[j]].Name < cols[dst[j-1]].Name; j-- {
			dst[j], dst[j-1] = dst[j-1], dst[j]
		}
	}
	return dst
}

func appendEscaped(dst, b []byte) []byte {
	start := 0
	for i, c := range b {
		if c == 0 {
			dst = append(dst, b[start:i+1]...)
			dst = append(dst, markZero)
			start = i + 1
		}
	}
	dst = append(dst, b[start:]...)
	return append(dst, 0, markEnd)
}

// Digest is the first half of the SHA-256 of a content.
func Digest(content []byte) [16]byte {
	sum := sha256.Sum256(content)
	return [16]byte(sum[:16])
}
