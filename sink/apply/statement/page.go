package statement

import (
	"strconv"
	"strings"
)

// Page reads rows in the order of the key: the first ones, or those behind a key. Its
// parameters are plain texts: the key's columns (only with after), then the number of rows.
func Page(s Shape, columns []string, after bool) string {
	var b strings.Builder
	b.WriteString("select ")
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("t." + Quote(c))
	}
	if s.Time != "" {
		b.WriteString(", " + s.Time)
	}
	b.WriteString(" from " + s.rows() + " as t")
	n := 0
	if after {
		b.WriteString(" where " + behind(s.Key))
		n = len(s.Key)
	}
	b.WriteString(" order by ")
	for i, p := range s.Key {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("t." + Quote(p.Name))
		if p.Collation != "" {
			b.WriteString(" collate " + p.Collation)
		}
		if p.Less != "" {
			b.WriteString(" using operator(" + p.Less + ")")
		}
	}
	b.WriteString(" limit $" + strconv.Itoa(n+1) + "::int")
	return b.String()
}

// behind is the condition that a row comes after a key. Where all operators are the ordinary
// ones it is one comparison of rows, which an index serves best.
func behind(key []Param) string {
	ordinary := true
	for _, p := range key {
		ordinary = ordinary && p.Greater == "" && p.Equal == "" && p.Collation == ""
	}
	if ordinary {
		var left, right []string
		for i, p := range key {
			left, right = append(left, "t."+Quote(p.Name)), append(right, p.expr(textParam(i+1)))
		}
		return "(" + strings.Join(left, ", ") + ") > (" + strings.Join(right, ", ") + ")"
	}
	var either []string
	for i, p := range key {
		var all []string
		for j, q := range key[:i] {
			all = append(all, q.equals("t."+Quote(q.Name), textParam(j+1)))
		}
		all = append(all, p.compare("t."+Quote(p.Name), ">", p.Greater, textParam(i+1)))
		either = append(either, strings.Join(all, " and "))
	}
	return strings.Join(either, " or ")
}
