package wire

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// appendRelation appends the self-contained description of rel.
func appendRelation(b []byte, rel *wal.Relation) []byte {
	b = appendText(b, rel.Schema)
	b = appendText(b, rel.Name)
	b = append(b, byte(rel.Identity))
	if rel.PrimaryKey == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(rel.PrimaryKey))+1)
		for _, p := range rel.PrimaryKey {
			b = binary.AppendUvarint(b, uint64(p))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(rel.Columns)))
	for i := range rel.Columns {
		c := &rel.Columns[i]
		b = appendText(b, c.Name)
		b = binary.AppendUvarint(b, uint64(c.OID))
		b = appendText(b, typeText(c))
		b = binary.AppendVarint(b, int64(c.TypeMod))
		flags := byte(c.Form) << 1
		if c.Key {
			flags |= 1
		}
		b = append(b, flags)
	}
	return b
}

// idMark stands between the name of a column's type and its ID. The first readers of version 1 take both for the
// name of a type: nothing that they decide depends on it for a built-in type, and for one of the user they look at what
// they have stored.
const idMark = '\x1f'

// typeText is the name of a column's type with its ID behind it, in hexadecimal digits; the name alone where there is none.
func typeText(c *wal.Column) string {
	if c.ID == 0 && strings.IndexByte(c.Type, idMark) < 0 {
		return c.Type
	}
	return c.Type + string(idMark) + strconv.FormatUint(c.ID, 16)
}

// parseType reads what typeText wrote. What is no ID belongs to the name.
func parseType(text string) (name string, id uint64) {
	at := strings.LastIndexByte(text, idMark)
	if at < 0 {
		return text, 0
	}
	id, err := strconv.ParseUint(text[at+1:], 16, 48)
	if err != nil || strconv.FormatUint(id, 16) != text[at+1:] {
		return text, 0
	}
	return text[:at], id
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseRelation reads what appendRelation wrote. The result does not alias b.
func parseRelation(b []byte) (*wal.Relation, error) {
	r := reader{b: b}
	rel := &wal.Relation{Schema: string(r.text()), Name: string(r.text())}
	switch rel.Identity = wal.Identity(r.byte()); rel.Identity {
	case wal.IdentityDefault, wal.IdentityNothing, wal.IdentityFull, wal.IdentityIndex:
	default:
		r.fail("replica identity 0x%x", byte(rel.Identity))
	}
	if n := r.count("key column", 1); n > 0 {
		if n > maxKeyColumns+1 {
			r.fail("key of %d columns", n-1)
			return nil, r.err
		}
		rel.PrimaryKey = make([]int, n-1)
		for i := range rel.PrimaryKey {
			rel.PrimaryKey[i] = int(r.uint32("key column"))
		}
	}
	columns := r.count("column", minColumn)
	if columns > maxColumns {
		r.fail("relation of %d columns", columns)
		return nil, r.err
	}
	rel.Columns = make([]wal.Column, columns)
	for i := range rel.Columns {
		c := &rel.Columns[i]
		c.Name = string(r.text())
		c.OID = r.uint32("type oid")
		c.Type, c.ID = parseType(string(r.text()))
		mod := r.varint()
		if mod != int64(int32(mod)) {
			r.fail("type modifier out of range")
		}
		c.TypeMod = int32(mod)
		flags := r.byte()
		if c.Form = wal.Form(flags >> 1); !c.Form.Valid() {
			r.fail("column flags 0x%x", flags)
		}
		c.Key = flags&1 != 0
		if r.err != nil {
			return nil, r.err
		}
	}
	for _, p := range rel.PrimaryKey {
		if p >= len(rel.Columns) {
			r.fail("key column %d of %d", p, len(rel.Columns))
		}
	}
	if r.err == nil && r.left() != 0 {
		r.fail("%d bytes follow a relation", r.left())
	}
	return rel, r.err
}

// maxCachedRelations and maxCachedBytes bound a cache; past one of them, the cache starts anew.
// Only the pointers change by that, and nobody may rely on them for more than speed.
const (
	maxCachedRelations = 4096
	maxCachedBytes     = 16 << 20
)

// A table of PostgreSQL has at most 1600 columns, and an index, unless the server was built
// otherwise, at most 32.
const (
	maxColumns    = 2048
	maxKeyColumns = 128
	minColumn     = 5 // bytes of a column's description
)

// RelationCache gives packets that describe a table in the same bytes the same
// *wal.Relation, so that a reader can keep what it derives from a relation under the
// pointer. The zero value is ready. It belongs to one goroutine.
type RelationCache struct {
	known map[string]*wal.Relation
	bytes int
}

// get returns the relation that b describes. A nil cache parses every time.
func (c *RelationCache) get(b []byte) (*wal.Relation, error) {
	if c == nil {
		return parseRelation(b)
	}
	if rel, ok := c.known[string(b)]; ok {
		return rel, nil
	}
	rel, err := parseRelation(b)
	if err != nil {
		return nil, err
	}
	size := len(b) + costRelation + len(rel.Columns)*costColumn
	if c.known == nil || len(c.known) >= maxCachedRelations || c.bytes+size > maxCachedBytes {
		c.known, c.bytes = make(map[string]*wal.Relation), 0
	}
	c.known[string(b)] = rel
	c.bytes += size
	return rel, nil
}
