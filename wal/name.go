package wal

import "strings"

// RelationName is a table's schema and name. It is comparable and serves as map key.
type RelationName struct{ Schema, Name string }

// String prints schema.table. A part that is not made of small letters, digits, _ and $ alone
// is quoted, so that two tables never have the same text; side tables keep it as their
// relation. It is not meant for SQL: words that SQL reserves are not quoted.
func (n RelationName) String() string { return quoted(n.Schema) + "." + quoted(n.Name) }

// ParseRelationName reads the form that String prints. It reports false for any other text.
func ParseRelationName(s string) (RelationName, bool) {
	schema, rest, ok := unquoted(s)
	if !ok || rest == "" || rest[0] != '.' {
		return RelationName{}, false
	}
	name, rest, ok := unquoted(rest[1:])
	if !ok || rest != "" {
		return RelationName{}, false
	}
	return RelationName{schema, name}, true
}

func quoted(s string) string {
	if s != "" && plainLen(s) == len(s) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// plainLen is how many bytes at the head of s need no quotes.
func plainLen(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '$' {
			return i
		}
	}
	return len(s)
}

// unquoted takes one part off the head of s.
func unquoted(s string) (part, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		n := plainLen(s)
		return s[:n], s[n:], n > 0
	}
	return CutQuoted(s[1:])
}

// CutQuoted reads a quoted name, whose opening quote is cut off, up to the closing one; "" inside is one quote.
func CutQuoted(s string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}
