package statement

import (
	"strconv"
	"strings"
)

// Statements that go out together with the commit: nobody looks at their results before. So each of them fails, with 22012,
// where something else was written than what was asked for; the server rolls the transaction back then.

// InsertRow is Insert for one row. Its parameters are plain ones and not arrays, numbered behind the first skip.
func InsertRow(s Shape, skip int) string {
	var b strings.Builder
	b.WriteString("insert into " + s.Table + " (" + nameList(s.Values) + ")")
	if s.Override {
		b.WriteString(" overriding system value")
	}
	b.WriteString(" values (")
	for i, p := range s.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.expr(p.plain(skip + i + 1)))
	}
	b.WriteString(") on conflict do nothing returning " + s.returning(""))
	return b.String()
}

// UpdateRow is Update for one row. Its parameters are plain ones and not arrays, numbered behind the first skip: key, values, guard.
func UpdateRow(s Shape, g Guard, skip int) string {
	var b strings.Builder
	b.WriteString("update " + s.rows() + " as t set ")
	for i, p := range s.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Quote(p.Name) + " = " + p.expr(p.plain(skip+len(s.Key)+i+1)))
	}
	b.WriteString(" where ")
	for i, p := range s.Key {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(p.equals("t."+Quote(p.Name), p.plain(skip+i+1)))
	}
	n := skip + len(s.Key) + len(s.Values)
	types := g.types(s)
	g.write(&b, s, func() string {
		n++
		typ := strings.TrimSuffix(types[0], "[]")
		types = types[1:]
		return "($" + strconv.Itoa(n) + "::" + typ + ")"
	})
	b.WriteString(" returning " + s.returning("t."))
	return b.String()
}

// plain is the parameter of a single value.
func (p Param) plain(n int) string {
	typ := "text"
	switch {
	case p.Digest:
		typ = "bytea"
	case p.Binary:
		typ = p.Type
	}
	return "($" + strconv.Itoa(n) + "::" + typ + ")"
}

func nameList(columns []Param) string {
	names := make([]string, len(columns))
	for i, p := range columns {
		names[i] = Quote(p.Name)
	}
	return strings.Join(names, ", ")
}

// stampNames are those of the columns that returning lists.
func (s Shape) stampNames() []string {
	var out []string
	if s.Version != "" {
		out = append(out, "v")
	}
	if s.UpdatedAt != "" {
		out = append(out, "t")
	}
	return out
}

// WrittenOrFails runs a statement that writes rows and returns their stamps (Insert, or Update, which returns the ordinals as well). It
// fails where not all of them were written with the given stamps, or sure, a condition, does not hold behind
// the write. params is how many parameters the statement and sure have; behind them come an array of versions and one of times, as far as the table has them.
func WrittenOrFails(s Shape, statement string, ordinals bool, params int, sure string) string {
	names, order := s.stampNames(), ""
	head := names
	if ordinals {
		head, order = append([]string{"o"}, names...), " order by w.o"
	}
	var conditions []string
	for _, n := range names {
		params++
		conditions = append(conditions, "pg_catalog.array_agg(w."+n+order+") = $"+strconv.Itoa(params)+"::"+stampType(n)+"[]")
	}
	return "with w(" + strings.Join(head, ", ") + ") as (" + statement + ") select 1 / coalesce(" + strings.Join(conditions, " and ") + " and " + sure + ", false)::int from w"
}

// RowOrFails writes one row by a statement of InsertRow or UpdateRow, and then saves what stands for it by a statement that has the parameters in front of those of the
// row, and ends with its condition. It returns 1. Where the row is not written it writes nothing at all and returns 0. It fails where
// the row has another stamp than the given one, nothing is saved, or sure does not hold behind the write. params as in
// WrittenOrFails; behind them come a version and a time.
func RowOrFails(s Shape, row, save string, params int, sure string) string {
	names := s.stampNames()
	var conditions []string
	for _, n := range names {
		params++
		conditions = append(conditions, "pg_catalog.bool_and(w."+n+" is not distinct from $"+strconv.Itoa(params)+"::"+stampType(n)+")")
	}
	return "with w(" + strings.Join(names, ", ") + ") as (" + row + "), s as (" + save + " and exists (select from w) returning 1) select count(*) / (count(*) = 0 or coalesce(" +
		strings.Join(conditions, " and ") + " and exists (select from s) and " + sure + ", false))::int from w"
}

func stampType(name string) string {
	if name == "v" {
		return "int8"
	}
	return "timestamptz"
}
