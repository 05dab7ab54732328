package statement

import "strings"

// Keys reads the keys of all rows, or of those that satisfy a condition of a publication (SQL of
// the server's own), in no order.
func Keys(s Shape, where string) string {
	columns := make([]string, len(s.Key))
	for i, p := range s.Key {
		columns[i] = Quote(p.Name)
	}
	sql := "select " + strings.Join(columns, ", ") + " from " + s.rows()
	if where != "" {
		sql += " where (" + where + ")"
	}
	return sql
}

// DeleteKey is the statement for an operator that deletes the row of one key. literals are the
// key's values as SQL literals.
func DeleteKey(s Shape, literals []string) string {
	var b strings.Builder
	b.WriteString("delete from " + s.rows() + " where ")
	for i, p := range s.Key {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(p.equals(Quote(p.Name), literals[i]))
	}
	b.WriteString(";")
	return b.String()
}
