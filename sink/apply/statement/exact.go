package statement

import (
	"strconv"
	"strings"
)

// Statements for tables with identity FULL and no key. Parameters are plain texts, one for each
// column; both sides are compared in the text of their output functions, which every type has
// and no cast can change. NULL equals NULL.

// ExactDelete deletes one row whose columns all equal the given ones.
func ExactDelete(s Shape, old []Param) string {
	return "delete from " + s.rows() + " as d where (d.tableoid, d.ctid) = (" + exact(s, old) + ") returning 1"
}

// ExactUpdate sets columns of one row whose columns all equal the given ones. The values
// follow the old ones.
func ExactUpdate(s Shape, old, set []Param) string {
	var b strings.Builder
	b.WriteString("update " + s.rows() + " as d set ")
	for i, p := range set {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Quote(p.Name) + " = " + p.expr(textParam(len(old)+i+1)))
	}
	b.WriteString(" where (d.tableoid, d.ctid) = (" + exact(s, old) + ") returning " + s.checked("d."))
	return b.String()
}

// ExactInsert inserts one row.
func ExactInsert(s Shape, row []Param) string {
	if len(row) == 0 {
		return "insert into " + s.Table + " default values returning " + s.checked("")
	}
	var names, exprs []string
	for i, p := range row {
		names = append(names, Quote(p.Name))
		exprs = append(exprs, p.expr(textParam(i+1)))
	}
	over := ""
	if s.Override {
		over = " overriding system value"
	}
	return "insert into " + s.Table + " (" + strings.Join(names, ", ") + ")" + over + " values (" + strings.Join(exprs, ", ") + ") returning " + s.checked("")
}

// checked lists the columns to check and the place of the row, where it is asked for; 1 for nothing.
func (s Shape) checked(prefix string) string {
	var cols []string
	for _, c := range s.Check {
		cols = append(cols, prefix+Quote(c))
	}
	if s.Place {
		cols = append(cols, prefix+"tableoid", prefix+"ctid")
	}
	if cols == nil {
		return "1"
	}
	return strings.Join(cols, ", ")
}

// AtPlace finds a row by its table and place, if it was not written since.
func AtPlace(s Shape) string {
	return "select 1 from " + s.rows() + " as t where (t.tableoid, t.ctid) = (($1::text)::oid, ($2::text)::tid)"
}

func textParam(n int) string { return "($" + strconv.Itoa(n) + "::text)" }

// exact selects where one such row is. In a partitioned table, or with children, the place
// alone does not name a row.
func exact(s Shape, columns []Param) string {
	var b strings.Builder
	b.WriteString("select t.tableoid, t.ctid from " + s.rows() + " as t where ")
	if len(columns) == 0 {
		b.WriteString("true")
	}
	for i, p := range columns {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(output("t."+Quote(p.Name)) + " is not distinct from (select " + output(p.expr(textParam(i+1))) + ")")
	}
	b.WriteString(" limit 1 for update")
	return b.String()
}

// output is the text of a value by its type's output function; NULL stays NULL.
func output(expr string) string {
	return "case when pg_catalog.num_nulls(" + expr + ") = 0 then pg_catalog.concat(" + expr + ") end"
}
