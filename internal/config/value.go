package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setText stores text in v, a field of Config that is not a section or list. The error says
// what was expected and never repeats a secret.
func setText(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *Size:
		n, err := ParseSize(text)
		if err != nil {
			return fmt.Errorf("%q is no size: want a number and a unit, for example 900KiB or 1GiB", text)
		}
		*p = n
	case *time.Duration:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		*p = d
	case *Secret:
		*p = NewSecret(text)
	case *DSN:
		*p = NewDSN(text)
	case *Pattern:
		q, err := ParsePattern(text)
		if err != nil {
			return patternError(err)
		}
		*p = q
	case *ColumnPattern:
		q, err := ParseColumnPattern(text)
		if err != nil {
			return patternError(err)
		}
		*p = q
	case **string:
		*p = &text
	case *string:
		*p = text
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		*p = n
	case *bool:
		b, ok := map[string]bool{"true": true, "false": false, "yes": true, "no": false, "on": true, "off": false}[strings.ToLower(text)]
		if !ok {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = b
	case choice:
		if !slices.Contains(p.words(), text) {
			return fmt.Errorf("%q is not one of %s", text, strings.Join(p.words(), ", "))
		}
		v.SetString(text)
	default:
		return fmt.Errorf("cannot be set from text")
	}
	return nil
}

func patternError(err error) error {
	return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "parse pattern "))
}

// parseDuration is time.ParseDuration with whole days; a number needs its unit.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n < 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: want a number and a unit, for example 500ms, 30s, 24h or 30d", s)
	}
	return d, nil
}

// field is one key of a section.
type field struct {
	key   string // "" for a key that the file may not hold
	env   string // last part of the variable's name
	index int
}

// fields lists the keys of a struct type, in order.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		one := field{key: tag, env: strings.ToUpper(tag), index: i}
		if tag == "-" {
			one.key, one.env = "", f.Tag.Get("env")
		}
		out = append(out, one)
	}
	return out
}

// isSection reports whether a type is a struct with keys of its own.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && len(fields(t)) > 0
}

// nearest returns the word that differs least from s, or "" when none is close.
func nearest(s string, words []string) string {
	best, at := "", 3
	for _, w := range words {
		if d := distance(s, w); d < at {
			best, at = w, d
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
