package statement

import (
	"slices"
	"strconv"
	"strings"
)

// Taken finds, among rows that wait, those that another row of the table is in the way of under a constraint, which holds both.
// The first parameter is an array of numbers by which they are known, then comes an array of texts for each of columns. These
// are all that the constraint is over, and the key's.
//
// Each row of the answer is the number of a row that waits; with rivals it is followed by the number of the one that waits
// for the key of the row in the way, NULL for none.
func Taken(s Shape, c Constraint, columns []Param, rivals bool) string {
	waiting := func(only func(Param) bool) string {
		var b strings.Builder
		b.WriteString(`(select u.p1 as "!number"`)
		for i, p := range columns {
			if only(p) {
				b.WriteString(", " + p.expr("u.p"+strconv.Itoa(i+2)) + " as " + Quote(p.Name))
			}
		}
		b.WriteString(" from ")
		unnest(&b, append([]string{"int8[]"}, arrayTypes(columns)...))
		return b.String() + ")"
	}
	// Terms and condition stand in queries of their own, where nothing but the table's columns can be meant.
	under := func(rows string) string {
		var b strings.Builder
		b.WriteString("(select x.*")
		for i, t := range c.Terms {
			b.WriteString(", (" + t.Expr + `) as "!` + strconv.Itoa(i+1) + `"`)
		}
		b.WriteString(" from " + rows + " as x")
		if c.Where != "" {
			b.WriteString(" where (" + c.Where + ")")
		}
		return b.String() + ")"
	}
	same := func(alias string) string {
		var terms []string
		for _, p := range s.Key {
			terms = append(terms, p.same("t."+Quote(p.Name), alias+"."+Quote(p.Name)))
		}
		return strings.Join(terms, " and ")
	}
	var clash []string
	for i, t := range c.Terms {
		name := `"!` + strconv.Itoa(i+1) + `"`
		one := "t." + name + " operator(" + t.Operator + ") u." + name
		if c.Nulls {
			one = "(" + one + " or " + bothNull("t."+name, "u."+name) + ")"
		}
		clash = append(clash, one)
	}
	if len(s.Key) > 0 {
		clash = append(clash, "("+same("u")+") is not true")
	}
	match := strings.Join(clash, " and ")
	all := func(Param) bool { return true }
	if !rivals {
		return `select u."!number" from ` + under(waiting(all)) + " as u where exists (select from " + under(s.rows()) + " as t where " + match + ")"
	}
	key := func(p Param) bool { return slices.ContainsFunc(s.Key, func(k Param) bool { return k.Name == p.Name }) }
	return `select u."!number", d."!number" from ` + under(waiting(all)) + " as u join " + under(s.rows()) + " as t on " + match +
		" left join " + waiting(key) + " as d on " + same("d")
}
