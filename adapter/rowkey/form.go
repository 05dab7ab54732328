package rowkey

import (
	"fmt"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Oids of built-in types.
const (
	oidNumeric = 1700
	oidFloat4  = 700
	oidFloat8  = 701
	oidBpchar  = 1042
	oidJSONB   = 3802
)

// plainTypes are the built-in types whose text is the same for equal values, and only for them.
var plainTypes = map[uint32]bool{
	16: true, 17: true, 18: true, 19: true, 20: true, 21: true, 23: true, 25: true, 26: true, 27: true, 28: true, 29: true, // bool bytea "char" name int8 int2 int4 text oid tid xid cid
	650: true, 774: true, 790: true, 829: true, 869: true, // cidr macaddr8 money macaddr inet
	1043: true, 1082: true, 1083: true, 1114: true, 1184: true, 1266: true, // varchar date time timestamp timestamptz timetz
	1560: true, 1562: true, 2950: true, 3220: true, 3614: true, 5069: true, // bit varbit uuid pg_lsn tsvector xid8
}

// bytewise are the collations that always are deterministic: none, "default", "C" and "POSIX".
var bytewise = []uint32{0, 100, 950, 951}

// plainExtensions are the extensions whose types have such a text.
var plainExtensions = map[string]bool{"ltree": true, "hstore": true, "isn": true}

// collatable are the text types, whose equality is their collation's.
func collatable(oid uint32) bool { return oid == 19 || oid == 25 || oid == oidBpchar || oid == 1043 }

// formOf decides the form of a key column from what its type is made of. hash is the function
// for the equality of the key, "" when there is none; what has to go with it is returned.
func formOf(parts []part, hash string) (form wal.Form, with statement.Hash, why string) {
	direct, name := wal.FormUnknown, ""
	var made, plain, weak, free, array = false, true, false, false, false
	for _, p := range parts {
		if p.depth == 0 {
			name = p.sql
		}
		if p.folds && p.extension == "citext" {
			return wal.FormUnknown, with, "citext compares in two ways under a collation that is not deterministic"
		}
		if p.made {
			if p.depth == 0 && p.kind != "d" {
				made, array = true, p.kind == "b"
			}
			continue
		}
		f := leaf(p)
		if p.depth == 0 {
			direct = f
		}
		plain = plain && f == wal.FormPlain
		weak = weak || f == wal.FormNumeric || p.oid == oidJSONB
		free = free || f == wal.FormHash && p.oid != oidJSONB
	}
	switch {
	case made && plain:
		return wal.FormPlain, with, ""
	case !made && direct != wal.FormHash:
		return direct, with, ""
	case hash == "":
		return wal.FormUnknown, with, fmt.Sprintf("type %s has no hash operator class with the same equality", name)
	case free && weak:
		return wal.FormUnknown, with, fmt.Sprintf("type %s mixes values whose text and values whose hash does not tell them apart", name)
	}
	return wal.FormHash, statement.Hash{Func: hash, Text: !free, Dims: array}, ""
}

// leaf is the form of a type that is not made of others.
func leaf(p part) wal.Form {
	switch {
	case p.folds && collatable(p.oid):
		return wal.FormHash
	case p.oid == oidNumeric:
		return wal.FormNumeric
	case p.oid == oidFloat4 || p.oid == oidFloat8:
		return wal.FormFloat
	case p.oid == oidBpchar:
		return wal.FormPadded
	case p.extension == "citext":
		return wal.FormLower
	case plainTypes[p.oid], p.kind == "e", plainExtensions[p.extension]:
		return wal.FormPlain
	}
	return wal.FormHash
}
