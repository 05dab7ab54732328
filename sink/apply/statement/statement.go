package statement

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

// Param is one array parameter: a column of the unnested set.
type Param struct {
	Name   string // the table's column
	Type   string // its type as SQL
	Binary bool   // the values travel in the type's binary form
	// Input: a cast of the application leads from text to the type, so that the input function
	// has to be reached in another way.
	Input bool
	// Equal, Less and Greater are the operators of a key column, qualified, where they are not
	// pg_catalog's =, < and >.
	Equal, Less, Greater string
	// Collation is that of a key column's index, qualified, where it is not the column's own.
	Collation string
	// Digest: the parameter is the digest of the column's value (wal.Digest).
	Digest bool
}

// arrayType is the SQL type of the parameter.
func (p Param) arrayType() string {
	switch {
	case p.Digest:
		return "bytea[]"
	case p.Binary:
		return p.Type + "[]"
	}
	return "text[]"
}

// expr converts element alias to the column's type.
func (p Param) expr(alias string) string {
	switch {
	case p.Binary || p.Type == "text":
		return alias
	case p.Input:
		// A string in JSON becomes a value by nothing but the type's input function.
		return "(select r.v from pg_catalog.json_to_record(pg_catalog.json_build_object('v', " + alias + ")) as r(v " + p.Type + "))"
	}
	return alias + "::" + p.Type
}

// equals compares a column of the table with element alias as the key's index does.
func (p Param) equals(column, alias string) string {
	if p.Digest {
		return digest(column, p.Type) + " = " + alias
	}
	return p.compare(column, "=", p.Equal, alias)
}

// same is equals for a value that is of the column's type already.
func (p Param) same(column, value string) string {
	p.Binary, p.Digest = true, false
	return p.equals(column, value)
}

// compare writes the comparison by an operator of pg_catalog, or by the named one.
func (p Param) compare(column, op, named, alias string) string {
	if named != "" {
		op = "operator(" + named + ")"
	}
	right := p.expr(alias)
	if p.Collation != "" {
		right = "(" + right + ") collate " + p.Collation
	}
	return column + " " + op + " " + right
}

// Shape is what a statement depends on beside the table.
type Shape struct {
	Table       string  // quoted and qualified
	Only        bool    // a plain table: its children, if it has any, are others
	Key         []Param // identify the row
	Values      []Param // INSERT: all columns incl. the key; UPDATE: the SET list
	Version     string  // column names, "" when the table has none
	UpdatedAt   string
	UpdatedType string   // type of updatedAt
	VersionText bool     // the stored version is returned as text: its type holds more than bigint does
	TimeText    bool     // and the stored time, likewise
	Check       []string // columns whose stored values are returned as well, behind the stamp
	Place       bool     // ExactInsert, ExactUpdate: table and place of the row are returned behind these
	Override    bool     // INSERT needs OVERRIDING SYSTEM VALUE
	Plain       bool     // INSERT without ON CONFLICT
	Time        string   // an expression over t that Read and Page give behind the columns; "" for none
}

// Quote quotes an identifier.
func Quote(ident string) string { return pgx.Identifier{ident}.Sanitize() }

// Table quotes a table's name.
func Table(schema, name string) string { return Quote(schema) + "." + Quote(name) }

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

func arrayTypes(params ...[]Param) []string {
	var types []string
	for _, ps := range params {
		for _, p := range ps {
			types = append(types, p.arrayType())
		}
	}
	return types
}

// rows names the table where rows are read, updated or deleted.
func (s Shape) rows() string {
	if s.Only {
		return "only " + s.Table
	}
	return s.Table
}

// returning lists the stored stamp and the columns to check, which the applier compares with
// the event's.
func (s Shape) returning(prefix string) string {
	var cols []string
	if s.Version != "" {
		cols = append(cols, prefix+Quote(s.Version)+as("int8", s.VersionText))
	}
	if s.UpdatedAt != "" {
		cols = append(cols, prefix+Quote(s.UpdatedAt)+as("timestamptz", s.TimeText))
	}
	for _, c := range s.Check {
		cols = append(cols, prefix+Quote(c))
	}
	return strings.Join(cols, ", ")
}

// as is the cast to a type, or to text.
func as(typ string, text bool) string {
	if text {
		return "::text"
	}
	return "::" + typ
}

// Insert inserts the rows that are not there and returns what is stored (returning) of those
// that it inserted, in the order of the parameters. A row that is there, or that collides with a
// unique index, is left out; the applier then looks at it under a lock.
func Insert(s Shape) string {
	var b strings.Builder
	b.WriteString("insert into " + s.Table + " (")
	for i, p := range s.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Quote(p.Name))
	}
	b.WriteString(")")
	if s.Override {
		b.WriteString(" overriding system value")
	}
	b.WriteString(" select ")
	for i, p := range s.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.expr("u.p" + strconv.Itoa(i+1)))
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.Values))
	if !s.Plain {
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
func keyJoin(b *strings.Builder, key []Param, from int) {
	for i, p := range key {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(p.equals("t."+Quote(p.Name), "u.p"+strconv.Itoa(from+i)))
	}
}

// Guard says under which condition a statement may overwrite without a look.
type Guard int

const (
	// GuardNone: the row is locked and was resolved already.
	GuardNone Guard = iota
	// GuardBase: the local stamp is the base that the event overwrote at its origin; two
	// more parameters, base version and base time.
	GuardBase
	// GuardVersion: the base is unknown; the event's version is above the local one; one
	// more parameter.
	GuardVersion
	// GuardTime: the base is unknown and there is no version; the event's time is above.
	GuardTime
)

// types lists the guard's parameters.
func (g Guard) types(s Shape) []string {
	switch g {
	case GuardBase:
		var t []string
		if s.Version != "" {
			t = append(t, "int8[]")
		}
		if s.UpdatedAt != "" {
			t = append(t, "timestamptz[]")
		}
		return t
	case GuardVersion:
		return []string{"int8[]"}
	case GuardTime:
		return []string{"timestamptz[]"}
	}
	return nil
}

// write writes the condition; arg names the guard's parameters, one after the other.
func (g Guard) write(b *strings.Builder, s Shape, arg func() string) {
	switch g {
	case GuardBase:
		if s.Version != "" {
			b.WriteString(" and t." + Quote(s.Version) + " = " + arg())
		}
		if s.UpdatedAt != "" {
			b.WriteString(" and t." + Quote(s.UpdatedAt) + " = " + arg() + "::" + s.UpdatedType)
		}
	case GuardVersion:
		b.WriteString(" and t." + Quote(s.Version) + " < " + arg())
	case GuardTime:
		b.WriteString(" and t." + Quote(s.UpdatedAt) + " < " + arg() + "::" + s.UpdatedType)
	}
}

// unnested names the unnested parameters from the given number on.
func unnested(from int) func() string {
	return func() string { from++; return "u.p" + strconv.Itoa(from-1) }
}

// Update overwrites the rows that satisfy the guard and returns their ordinals and what is
// stored. Parameters: key, values, guard.
func Update(s Shape, g Guard) string {
	var b strings.Builder
	b.WriteString("update " + s.rows() + " as t set ")
	for i, p := range s.Values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Quote(p.Name) + " = " + p.expr("u.p"+strconv.Itoa(len(s.Key)+1+i)))
	}
	b.WriteString(" from ")
	unnest(&b, append(arrayTypes(s.Key, s.Values), g.types(s)...))
	b.WriteString(" where ")
	keyJoin(&b, s.Key, 1)
	g.write(&b, s, unnested(len(s.Key)+len(s.Values)+1))
	b.WriteString(" returning u.ord")
	if r := s.returning("t."); r != "" {
		b.WriteString(", " + r)
	}
	return b.String()
}

// Delete deletes the rows that satisfy the guard and returns their ordinals. GuardTime
// has the meaning "not younger than" here.
func Delete(s Shape, g Guard) string {
	var b strings.Builder
	b.WriteString("delete from " + s.rows() + " as t using ")
	unnest(&b, append(arrayTypes(s.Key), g.types(s)...))
	b.WriteString(" where ")
	keyJoin(&b, s.Key, 1)
	if g == GuardTime {
		b.WriteString(" and t." + Quote(s.UpdatedAt) + " <= u.p" + strconv.Itoa(len(s.Key)+1) + "::" + s.UpdatedType)
	} else {
		g.write(&b, s, unnested(len(s.Key)+1))
	}
	b.WriteString(" returning u.ord")
	return b.String()
}

// Read reads the rows of the given keys, each with the ordinal of its key. Columns come in the
// output form of their types.
func Read(s Shape, columns []string) string {
	var b strings.Builder
	b.WriteString("select u.ord")
	for _, c := range columns {
		b.WriteString(", t." + Quote(c))
	}
	if s.Time != "" {
		b.WriteString(", " + s.Time)
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" join " + s.rows() + " as t on ")
	keyJoin(&b, s.Key, 1)
	return b.String()
}

// Lock is Read under row locks, in the order of the key so that two appliers never lock
// crosswise.
func Lock(s Shape, columns []string) string {
	var b strings.Builder
	b.WriteString(Read(s, columns))
	b.WriteString(" order by ")
	for i, p := range s.Key {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("t." + Quote(p.Name))
	}
	b.WriteString(" for update of t")
	return b.String()
}

// Put tells which of the rows of the given keys the transaction in hand has written, each with its ordinal and with what is stored (returning).
// Parameters: key.
//
// A row that is visible was written by a transaction that has ended, or by this one or a subtransaction of it. None of these is older than this one.
func Put(s Shape) string {
	const now = "pg_catalog.pg_current_xact_id()"
	var b strings.Builder
	b.WriteString("select u.ord")
	if r := s.returning("t."); r != "" {
		b.WriteString(", " + r)
	}
	b.WriteString(" from ")
	unnest(&b, arrayTypes(s.Key))
	b.WriteString(" join " + s.rows() + " as t on ")
	keyJoin(&b, s.Key, 1)
	since := "pg_catalog.age(" + now + "::pg_catalog.xid)"
	b.WriteString(" where case when pg_catalog.age(t.xmin) <= " + since + " then pg_catalog.pg_xact_status((" + now + "::text::int8 + " + since +
		" - pg_catalog.age(t.xmin))::text::pg_catalog.xid8) = 'in progress' else false end order by u.ord")
	return b.String()
}
