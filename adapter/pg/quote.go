package pg

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Quote quotes an identifier.
func Quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// QuoteTable quotes a table's schema and name.
func QuoteTable(schema, table string) string { return pgx.Identifier{schema, table}.Sanitize() }

// Literal quotes a string constant; it is right whatever standard_conforming_strings says.
func Literal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
