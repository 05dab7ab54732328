package config

import (
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Pattern selects tables by schema and name. Each part is a glob in which * stands for any
// run of characters and ? for one; a part in double quotes stands for itself. Case counts,
// as in the catalog.
type Pattern struct {
	text  string
	parts []part
}

// ColumnPattern selects columns: schema.table.column, each part as in Pattern.
type ColumnPattern struct{ Pattern }

type part struct {
	text    string
	literal bool // it stands for itself: thousands of tables may be held against thousands of patterns
}

// ParsePattern reads schema.table.
func ParsePattern(s string) (Pattern, error) { return parsePattern(s, 2, "schema.table") }

// ParseColumnPattern reads schema.table.column.
func ParseColumnPattern(s string) (ColumnPattern, error) {
	p, err := parsePattern(s, 3, "schema.table.column")
	return ColumnPattern{p}, err
}

// MustPattern is ParsePattern for constants; it panics on a bad one.
func MustPattern(s string) Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

func parsePattern(s string, want int, form string) (Pattern, error) {
	p := Pattern{text: s}
	rest := s
	for {
		var one part
		if strings.HasPrefix(rest, `"`) {
			var ok bool
			if one.text, rest, ok = wal.CutQuoted(rest[1:]); !ok {
				return Pattern{}, fmt.Errorf("parse pattern %q: a quote is not closed", s)
			}
			one.literal = true
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			one.text, rest = rest[:end], rest[end:]
			if strings.ContainsAny(one.text, "\" \t\n;'\\[]{}") {
				return Pattern{}, fmt.Errorf("parse pattern %q: put names with such characters in double quotes", s)
			}
			one.literal = !strings.ContainsAny(one.text, "*?")
		}
		if one.text == "" {
			return Pattern{}, fmt.Errorf("parse pattern %q: want %s", s, form)
		}
		p.parts = append(p.parts, one)
		if rest == "" {
			break
		}
		if rest[0] != '.' || len(rest) == 1 {
			return Pattern{}, fmt.Errorf("parse pattern %q: want %s", s, form)
		}
		rest = rest[1:]
	}
	if len(p.parts) != want {
		return Pattern{}, fmt.Errorf("parse pattern %q: want %s", s, form)
	}
	return p, nil
}

// Match reports whether the names match the pattern's parts.
func (p Pattern) Match(names ...string) bool {
	if len(names) != len(p.parts) {
		return false
	}
	for i, one := range p.parts {
		if one.literal && one.text != names[i] || !one.literal && !glob([]rune(one.text), []rune(names[i])) {
			return false
		}
	}
	return true
}

// glob matches without recursion: on a mismatch the last * takes one character more.
func glob(pat, s []rune) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pat) && pat[p] == '*':
			star, mark = p, i
			p++
		case p < len(pat) && (pat[p] == '?' || pat[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pat) && pat[p] == '*' {
		p++
	}
	return p == len(pat)
}

// Exact reports whether the pattern names one table or column, without * and ?.
func (p Pattern) Exact() bool {
	for _, one := range p.parts {
		if !one.literal && strings.ContainsAny(one.text, "*?") {
			return false
		}
	}
	return true
}

// WholeSchemas reports whether the pattern selects every table of the schemas that it matches.
func (p Pattern) WholeSchemas() bool {
	return len(p.parts) == 2 && !p.parts[1].literal && p.parts[1].text == "*"
}

// MatchSchema reports whether the pattern's first part matches the schema.
func (p Pattern) MatchSchema(schema string) bool {
	return len(p.parts) > 0 && Pattern{parts: p.parts[:1]}.Match(schema)
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// MarshalYAML prints the pattern as it was written.
func (p Pattern) MarshalYAML() (any, error) { return p.text, nil }
