package statement

import (
	"strconv"
	"strings"
)

// Orphans reads up to limit rows that reference values which no row of the table has any more, each
// behind the ordinal of its values. Parameters: an array for each of parent, which are the columns
// of the table that the foreign key references.
func Orphans(s Shape, parent []Param, r Reference, columns []string, limit int) string {
	var b strings.Builder
	b.WriteString("select u.ord")
	for _, c := range columns {
		b.WriteString(", c." + Quote(c))
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(parent))
	b.WriteString(" join " + r.rows() + " as c on ")
	for i, p := range parent {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(p.expr("u.p"+strconv.Itoa(i+1)) + " " + r.Equals[i] + " c." + Quote(r.Columns[i]))
	}
	b.WriteString(" where not exists (select from " + r.referenced(s) + " as t where ")
	for i := range r.Columns {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString("t." + Quote(r.Parent[i]) + " " + r.Equals[i] + " c." + Quote(r.Columns[i]))
	}
	b.WriteString(") limit " + strconv.Itoa(limit))
	return b.String()
}
