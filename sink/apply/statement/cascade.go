package statement

import "strings"

// Reference is a foreign key whose ON DELETE action changes the rows that reference a table.
type Reference struct {
	On      string   // the partition of the table that alone is referenced, as rows of it are named; "" for the table itself
	Table   string   // that holds the foreign key, quoted and qualified
	Only    bool     // it is a plain table: its children are not meant
	Columns []string // of the foreign key
	Parent  []string // the columns that they reference
	Equals  []string // operators, qualified: parent column, operator, column
	Set     []string // columns that are set; none: the rows are deleted
	To      string   // what they are set to: null or default
}

func (r Reference) rows() string {
	if r.Only {
		return "only " + r.Table
	}
	return r.Table
}

// referenced names the rows that are referenced.
func (r Reference) referenced(s Shape) string {
	if r.On != "" {
		return r.On
	}
	return s.rows()
}

// match joins the referencing rows with those rows of the table that have one of the keys.
func (r Reference) match(s Shape) string {
	var b strings.Builder
	b.WriteString(r.referenced(s) + " as t, ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" where ")
	keyJoin(&b, s.Key, 1)
	for i := range r.Columns {
		b.WriteString(" and t." + Quote(r.Parent[i]) + " " + r.Equals[i] + " c." + Quote(r.Columns[i]))
	}
	return b.String()
}

// Referencing tells whether rows reference one of the given keys. Parameters: key.
func Referencing(s Shape, r Reference) string {
	return "select 1 from " + r.rows() + " as c, " + r.match(s) + " limit 1"
}

// Cascade does to the rows that reference one of the given keys what ON DELETE would do.
// Parameters: key.
func Cascade(s Shape, r Reference) string {
	if len(r.Set) == 0 {
		return "delete from " + r.rows() + " as c using " + r.match(s)
	}
	set := make([]string, len(r.Set))
	for i, c := range r.Set {
		set[i] = Quote(c) + " = " + r.To
	}
	return "update " + r.rows() + " as c set " + strings.Join(set, ", ") + " from " + r.match(s)
}
