package sink

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// This file generates every statement that touches a replicated table. It is pure; golden
// files hold what it writes. Identifiers are always quoted and schema-qualified, types are
// named by PostgreSQL itself (format_type under an empty search_path).
//
// All statements are set-based: one array parameter for each column, unnested. A value that
// travels as text is sent as an element of text[] and converted by its type's input
// function; a value that travels in binary is sent as an element of its own type.

// param is one array parameter: a column of the unnested set.
type param struct {
	name   string // the table's column
	typ    string // its type as SQL
	binary bool   // the values travel in the type's binary form
}

// arrayType is the SQL type of the parameter.
func (p param) arrayType() string {
	if p.binary {
		return p.typ + "[]"
	}
	return "text[]"
}

// expr converts element alias to the column's type.
func (p param) expr(alias string) string {
	if p.binary || p.typ == "text" {
		return alias
	}
	return alias + "::" + p.typ
}

// shape is what a statement depends on beside the table.
type shape struct {
	table     string  // quoted and qualified
	key       []param // identify the row
	values    []param // INSERT: all columns incl. the key; UPDATE: the SET list
	version   string  // column names, "" when the table has none
	updatedAt string
	updatedTy string // type of updatedAt
	override  bool   // INSERT needs OVERRIDING SYSTEM VALUE
	plain     bool   // INSERT without ON CONFLICT
}

func quote(ident string) string { return pgx.Identifier{ident}.Sanitize() }

// unnest writes `unnest($1::t1[], ...) with ordinality as u(p1, ..., ord)`.
func unnest(b *strings.Builder, types []string) {
	b.WriteString("unnest(")
	for i, t := range types {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1) + "::" + t)
	}
	b.WriteString(") with ordinality as u(")
	for i := range types {
		b.WriteString("p" + strconv.Itoa(i+1) + ", ")
	}
	b.WriteString("ord)")
}

func arrayTypes(params ...[]param) []string {
	var types []string
	for _, ps := range params {
		for _, p := range ps {
			types = append(types, p.arrayType())
		}
	}
	return types
}

// returning lists the stored stamp, which the applier compares with the event's.
func (s shape) returning(prefix string) string {
	var cols []string
	if s.version != "" {
		cols = append(cols, prefix+quote(s.version)+"::int8")
	}
	if s.updatedAt != "" {
		cols = append(cols, prefix+quote(s.updatedAt)+"::timestamptz")
	}
	return strings.Join(cols, ", ")
}

// insertSQL inserts the rows that are not there and returns the stamps of those that it
// inserted, in the order of the parameters. A row that is there, or that collides with a
// unique index, is left out; the applier then looks at it under a lock.
func insertSQL(s shape) string {
	var b strings.Builder
	b.WriteString("insert into " + s.table + " (")
	for i, p := range s.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(p.name))
	}
	b.WriteString(")")
	if s.override {
		b.WriteString(" overriding system value")
	}
	b.WriteString(" select ")
	for i, p := range s.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.expr("u.p" + strconv.Itoa(i+1)))
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.values))
	if !s.plain {
		b.WriteString(" on conflict do nothing")
	}
	if r := s.returning(""); r != "" {
		b.WriteString(" returning " + r)
	} else {
		b.WriteString(" returning 1")
	}
	return b.String()
}

// keyJoin writes `t.k1 = u.p1 and ...`, the key parameters starting at number from.
func keyJoin(b *strings.Builder, key []param, from int) {
	for i, p := range key {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString("t." + quote(p.name) + " = " + p.expr("u.p"+strconv.Itoa(from+i)))
	}
}

// guard says under which condition a statement may overwrite without a look.
type guard int

const (
	// guardNone: the row is locked and was resolved already.
	guardNone guard = iota
	// guardBase: the local stamp is the base that the event overwrote at its origin; two
	// more parameters, base version and base time.
	guardBase
	// guardVersion: the base is unknown; the event's version is above the local one; one
	// more parameter.
	guardVersion
	// guardTime: the base is unknown and there is no version; the event's time is above.
	guardTime
)

// types lists the guard's parameters.
func (g guard) types(s shape) []string {
	switch g {
	case guardBase:
		var t []string
		if s.version != "" {
			t = append(t, "int8[]")
		}
		if s.updatedAt != "" {
			t = append(t, "timestamptz[]")
		}
		return t
	case guardVersion:
		return []string{"int8[]"}
	case guardTime:
		return []string{"timestamptz[]"}
	}
	return nil
}

func (g guard) write(b *strings.Builder, s shape, from int) {
	arg := func() string { from++; return "u.p" + strconv.Itoa(from-1) }
	switch g {
	case guardBase:
		if s.version != "" {
			b.WriteString(" and t." + quote(s.version) + " = " + arg())
		}
		if s.updatedAt != "" {
			b.WriteString(" and t." + quote(s.updatedAt) + " = " + arg() + "::" + s.updatedTy)
		}
	case guardVersion:
		b.WriteString(" and t." + quote(s.version) + " < " + arg())
	case guardTime:
		b.WriteString(" and t." + quote(s.updatedAt) + " < " + arg() + "::" + s.updatedTy)
	}
}

// updateSQL overwrites the rows that satisfy the guard and returns their ordinals and
// stored stamps. Parameters: key, values, guard.
func updateSQL(s shape, g guard) string {
	var b strings.Builder
	b.WriteString("update " + s.table + " as t set ")
	for i, p := range s.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(p.name) + " = " + p.expr("u.p"+strconv.Itoa(len(s.key)+1+i)))
	}
	b.WriteString(" from ")
	unnest(&b, append(arrayTypes(s.key, s.values), g.types(s)...))
	b.WriteString(" where ")
	keyJoin(&b, s.key, 1)
	g.write(&b, s, len(s.key)+len(s.values)+1)
	b.WriteString(" returning u.ord")
	if r := s.returning("t."); r != "" {
		b.WriteString(", " + r)
	}
	return b.String()
}

// deleteSQL deletes the rows that satisfy the guard and returns their ordinals. guardTime
// has the meaning "not younger than" here.
func deleteSQL(s shape, g guard) string {
	var b strings.Builder
	b.WriteString("delete from " + s.table + " as t using ")
	unnest(&b, append(arrayTypes(s.key), g.types(s)...))
	b.WriteString(" where ")
	keyJoin(&b, s.key, 1)
	if g == guardTime {
		b.WriteString(" and t." + quote(s.updatedAt) + " <= u.p" + strconv.Itoa(len(s.key)+1) + "::" + s.updatedTy)
	} else {
		g.write(&b, s, len(s.key)+1)
	}
	b.WriteString(" returning u.ord")
	return b.String()
}

// lockSQL reads the rows of the given keys under row locks, in the order of the key so that
// two appliers never lock crosswise. Columns come in the output form of their types.
func lockSQL(s shape, columns []string) string {
	var b strings.Builder
	b.WriteString("select u.ord")
	for _, c := range columns {
		b.WriteString(", t." + quote(c))
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.key))
	b.WriteString(" join " + s.table + " as t on ")
	keyJoin(&b, s.key, 1)
	b.WriteString(" order by ")
	for i, p := range s.key {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("t." + quote(p.name))
	}
	b.WriteString(" for update of t")
	return b.String()
}

// exactSQL selects one row whose columns all equal the given images: for tables with
// identity FULL and no key. Both sides are compared in their text form, which every type
// has; NULL equals NULL. Parameters are plain texts, one for each column.
func exactSQL(table string, columns []param) string {
	var b strings.Builder
	b.WriteString("select t.ctid from " + table + " as t where ")
	for i, p := range columns {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString("t." + quote(p.name) + "::text is not distinct from ($" + strconv.Itoa(i+1) + "::text)::" + p.typ + "::text")
	}
	b.WriteString(" limit 1 for update")
	return b.String()
}
