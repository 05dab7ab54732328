package statement

import "strings"

// digest is the digest of a column's value, of the given type (wal.Digest): the SHA-256 of its
// text in UTF-8; NULL for NULL. The bytes of a database without an encoding are taken as they
// are.
func digest(column, typ string) string {
	text := "pg_catalog.concat(" + column + ")"
	if typ == "text" || typ == "character varying" {
		text = column + "::pg_catalog.text"
	}
	return "case when pg_catalog.num_nulls(" + column + ") = 0 then pg_catalog.sha256(pg_catalog.convert_to(" + text +
		", case when pg_catalog.getdatabaseencoding() = 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end)) end"
}

// Column is a column of a table with its type as SQL.
type Column struct{ Name, Type string }

// Digests reads the digests of some columns in the rows of the given keys, each row with the
// ordinal of its key.
func Digests(s Shape, columns []Column) string {
	var b strings.Builder
	b.WriteString("select u.ord")
	for _, c := range columns {
		b.WriteString(", " + digest("t."+Quote(c.Name), c.Type))
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" join " + s.rows() + " as t on ")
	keyJoin(&b, s.Key, 1)
	return b.String()
}
