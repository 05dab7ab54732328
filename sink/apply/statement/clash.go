package statement

import "strings"

// Clash looks for a row that a constraint does not allow beside one of the rows with the given
// keys: columns names the constraint's columns, each with the operator that must not hold for
// all of them. It is for constraints that nothing checks in our session (deferrable ones).
func Clash(s Shape, columns []Param) string {
	var b strings.Builder
	b.WriteString("select 1 from ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" join " + s.rows() + " as t on ")
	keyJoin(&b, s.Key, 1)
	b.WriteString(" join " + s.rows() + " as o on ")
	for i, p := range columns {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString("t." + Quote(p.Name) + " operator(" + p.Equal + ") o." + Quote(p.Name))
	}
	b.WriteString(" where (o.tableoid, o.ctid) <> (t.tableoid, t.ctid) limit 1")
	return b.String()
}

// LockTable keeps every other writer out of a table until the end of the transaction.
func LockTable(s Shape) string {
	return "lock table " + s.rows() + " in share row exclusive mode"
}
