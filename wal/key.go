package wal

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// maxKey is the longest key that is kept as it is; B-tree entries must stay below 2704 bytes.
const maxKey = 512

// TextOf returns the text form of v as AppendText gives it, for a parameter of a statement; nil where there
// is none.
func TextOf(oid uint32, v Value) *string {
	b, ok := AppendText(nil, oid, v)
	if !ok {
		return nil
	}
	text := string(b)
	return &text
}

// AppendText appends the text form of v, a value of type oid, to dst. It reports false for a
// binary value of any other type than those above, and for NULL and absent values.
func AppendText(dst []byte, oid uint32, v Value) ([]byte, bool) {
	if v.Kind == Text {
		return append(dst, v.Bytes...), true
	}
	if v.Kind != Binary {
		return dst, false
	}
	b := v.Bytes
	switch {
	case oid == OIDBool && len(b) == 1:
		if b[0] != 0 {
			return append(dst, 't'), true
		}
		return append(dst, 'f'), true
	case oid == OIDInt2 && len(b) == 2:
		return strconv.AppendInt(dst, int64(int16(uint16(b[0])<<8|uint16(b[1]))), 10), true
	case oid == OIDInt4 && len(b) == 4:
		return strconv.AppendInt(dst, int64(int32(be32(b))), 10), true
	case oid == OIDOid && len(b) == 4:
		return strconv.AppendUint(dst, uint64(be32(b)), 10), true
	case oid == OIDInt8 && len(b) == 8:
		return strconv.AppendInt(dst, int64(uint64(be32(b))<<32|uint64(be32(b[4:]))), 10), true
	case oid == OIDUUID && len(b) == 16:
		for i, n := 0, 0; i < 16; i += n {
			n = [...]int{0: 4, 4: 2, 6: 2, 8: 2, 10: 6}[i]
			if i > 0 {
				dst = append(dst, '-')
			}
			dst = hex.AppendEncode(dst, b[i:i+n])
		}
		return dst, true
	case oid == OIDText, oid == OIDVarchar, oid == OIDBpchar, oid == OIDName:
		return append(dst, b...), true
	}
	return dst, false
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// AppendKey appends the canonical text of the key of row: a JSON array of the key columns in
// key order, each in its canonical form, for example ["42"] or ["eu","7"]; a key longer than
// 512 bytes becomes "#" and its SHA-256 in hex. It names a row in side tables, logs and maps,
// and is the same in every region. NULL is null.
//
// Where a column's form is known to the server only (Asks), the text is right only with the
// answers in asked, one for each key column that has such a form, in key order; without
// them the column's own text stands in. Change.AppendKey takes them from the change.
func (r *Relation) AppendKey(dst []byte, row Tuple, asked ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, '[')
	for n, i := range r.KeyColumns() {
		if n > 0 {
			dst = append(dst, ',')
		}
		c, v := &r.Columns[i], row[i]
		if c.Form.Asked() && len(asked) > 0 {
			dst = appendJSON(dst, asked[0])
			asked = asked[1:]
			continue
		}
		if v.Kind != Text && v.Kind != Binary {
			dst = append(dst, "null"...)
			continue
		}
		var raw [64]byte
		text, _ := AppendText(raw[:0], c.OID, v)
		dst = appendJSON(dst, c.Form.Canonical(text))
	}
	return hashLong(append(dst, ']'), start)
}

// hashLong replaces a key text that is too long for an index, from start on, by its hash.
func hashLong(dst []byte, start int) []byte {
	if len(dst)-start > maxKey {
		sum := sha256.Sum256(dst[start:])
		dst = append(dst[:start], '#')
		dst = hex.AppendEncode(dst, sum[:])
	}
	return dst
}

// Asks reports whether the key has a column whose form only the server can compute.
func (r *Relation) Asks() bool {
	for _, i := range r.KeyColumns() {
		if r.Columns[i].Form.Asked() {
			return true
		}
	}
	return false
}

// Keys are the texts of a change's keys, where the server had to be asked for them.
type Keys struct{ Old, New []byte }

// AppendKey appends the canonical key text of the row that the change leaves behind, or with a
// delete of the row that it removed.
func (c *Change) AppendKey(dst []byte) []byte {
	if c.Op == Delete {
		return c.AppendOldKey(dst)
	}
	if c.Keys != nil && c.Keys.New != nil {
		return append(dst, c.Keys.New...)
	}
	return c.Relation.AppendKey(dst, c.New)
}

// AppendOldKey appends the canonical key text of the row before the change. There must be one
// (Old).
func (c *Change) AppendOldKey(dst []byte) []byte {
	if c.Keys != nil && c.Keys.Old != nil {
		return append(dst, c.Keys.Old...)
	}
	return c.Relation.AppendKey(dst, c.Old)
}

// appendJSON appends s as a JSON string. Only what JSON demands is escaped, so that the
// text is a pure function of the bytes. Bytes that are no UTF-8 (a database in SQL_ASCII has
// such) are escaped as well; characters never are, so different bytes stay different.
func appendJSON(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	valid := utf8.Valid(s)
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c >= 0x80 && !valid:
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
				continue
			}
			dst = append(dst, s[i:i+n]...)
			i += n - 1
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
