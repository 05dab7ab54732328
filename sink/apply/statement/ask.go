package statement

import (
	"strconv"
	"strings"
)

// Asked is a key column whose canonical text only the server can compute.
type Asked struct {
	Param Param
	Lower bool // by lower() under the database's collation; otherwise by Hash
	Hash  Hash
}

// Hash names the extended hash function of an operator class, and the collation that it is to
// use, both qualified; no collation for types without one.
//
// Some hash functions lose what others depend on: that of numeric the sign, that of arrays the
// dimensions, that of jsonb much of the structure. So the hashes can have company that equal
// values share as well.
type Hash struct {
	Func, Collation string
	Text            bool // the text of the value, less what may differ between equal ones
	Dims            bool // the dimensions of an array
}

// company is the text, in small letters, without zeros, points, spaces and quotes: what is left
// is the same for 1.50 and 1.5, -0 and 0, and not the same for 1.5 and -1.5.
func (h Hash) company(v string) []string {
	var out []string
	if h.Text {
		out = append(out, "pg_catalog.translate(pg_catalog.lower(pg_catalog.regexp_replace("+output(v)+`, '-0(?![.0-9e])', '0', 'g') collate pg_catalog."default"), '0. "', '')`)
	}
	if h.Dims {
		out = append(out, "pg_catalog.array_dims("+v+")")
	}
	return out
}

// hashSeeds are the seeds of the two hashes that make up a text of 128 bits.
var hashSeeds = [...]string{"0", "6364136223846793005"}

// expr is the canonical text of element alias.
func (a Asked) expr(alias string) string {
	if a.Lower {
		return "pg_catalog.lower(" + alias + ` collate pg_catalog."default")`
	}
	v := a.Param.expr(alias)
	if a.Hash.Collation != "" {
		v = "(" + v + ") collate " + a.Hash.Collation
	}
	var hashes []string
	for _, seed := range hashSeeds {
		hashes = append(hashes, "pg_catalog.to_hex("+a.Hash.Func+"("+v+", "+seed+"))")
	}
	hashes = append(hashes, a.Hash.company(v)...)
	return "pg_catalog.concat_ws('.', " + strings.Join(hashes, ", ") + ")"
}

// Compute evaluates expressions over the columns of a table for rows that are given as texts of
// its row type, one text[] parameter; one row of texts for each, in order. The row type's input
// function makes each value as the column's own type does, and the columns keep their collations.
func Compute(table string, exprs []string) string {
	out := make([]string, len(exprs))
	for i, e := range exprs {
		// offset 0: the text is read once, and not once for each column.
		out[i] = "(select " + output("("+e+")") + " from (select (r.x).* from (select u.j::" + table + " as x offset 0) as r) as g)"
	}
	return "select " + strings.Join(out, ", ") + " from unnest($1::text[]) with ordinality as u(j, ord) order by u.ord"
}

// Ask computes the canonical texts of many keys: one text[] parameter for each column, one row
// for each element, in order.
func Ask(columns []Asked) string {
	var b strings.Builder
	b.WriteString("select ")
	types := make([]string, len(columns))
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.expr("u.p" + strconv.Itoa(i+1)))
		types[i] = "text[]"
	}
	b.WriteString(" from ")
	unnest(&b, types)
	b.WriteString(" order by u.ord")
	return b.String()
}
