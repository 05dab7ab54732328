package statement

import (
	"strconv"
	"strings"
)

// Constraint is a unique or an exclusion constraint as its index has it.
type Constraint struct {
	// Terms are what the index is over, each with the operator that must not hold for all of them.
	Terms []Term
	// Where is the index's condition, "" for none.
	Where string
	// Nulls: NULL counts as equal to NULL.
	Nulls bool
}

// Term is a column, quoted, or an expression over the table's columns.
type Term struct{ Expr, Operator string }

// Clash looks for a row that a constraint does not allow beside one of the rows with the given
// keys. It is for constraints that nothing checks in our session (deferrable ones). The terms
// stand in a query of their own, where nothing but the table's columns can be meant.
func Clash(s Shape, c Constraint) string {
	var b strings.Builder
	rows := c.rows(s)
	b.WriteString("select 1 from ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" join " + rows + " as t on ")
	keyJoin(&b, s.Key, 1)
	return b.String() + c.beside(rows)
}

// ClashNow is Clash for all rows that were written since this transaction began. No one else may have been able to write to the table
// while it did, or it looks at those rows as well.
func ClashNow(s Shape, c Constraint) string {
	rows := c.rows(s)
	return "select 1 from (select r.* from " + rows + ` as r where pg_catalog.age(r."!writer") <= pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid)) as t` + c.beside(rows)
}

// rows are those that the constraint holds, with what it is over.
func (c Constraint) rows(s Shape) string {
	rows := `(select x.*, x.tableoid as "!table", x.ctid as "!place", x.xmin as "!writer"`
	for i, t := range c.Terms {
		rows += ", (" + t.Expr + ") as \"!" + strconv.Itoa(i+1) + "\""
	}
	rows += " from " + s.rows() + " as x"
	if c.Where != "" {
		rows += " where (" + c.Where + ")"
	}
	return rows + ")"
}

// beside joins rows, named t, with another one that is not allowed beside it.
func (c Constraint) beside(rows string) string {
	var b strings.Builder
	b.WriteString(" join " + rows + " as o on ")
	for i, t := range c.Terms {
		if i > 0 {
			b.WriteString(" and ")
		}
		name := "\"!" + strconv.Itoa(i+1) + "\""
		same := "t." + name + " operator(" + t.Operator + ") o." + name
		if c.Nulls {
			same = "(" + same + " or " + bothNull("t."+name, "o."+name) + ")"
		}
		b.WriteString(same)
	}
	b.WriteString(` where (o."!table", o."!place") <> (t."!table", t."!place") limit 1`)
	return b.String()
}

// bothNull is the condition that two values are NULL, which a look into an index on either of them can use. A row of NULLs is a value, though IS NULL says otherwise.
func bothNull(a, b string) string {
	return a + " is null and " + b + " is null and pg_catalog.num_nulls(" + a + ", " + b + ") = 2"
}

// LockTable keeps every other writer out of a table until the end of the transaction.
func LockTable(s Shape) string {
	return "lock table " + s.rows() + " in share row exclusive mode"
}
