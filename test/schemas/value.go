package main

import (
	"fmt"
	"strconv"
	"strings"
)

// null is the value NULL.
const null = "null"

// value makes the value of a column for row n in variant v, as an SQL expression. The value of a
// fixed column depends on n alone, so that two regions which write the same row clash in its key
// and nowhere else.
func (c *column) value(n, v int) string {
	if c.fixed {
		v = 0
	}
	if !c.notNull && !c.fixed && (n+v)%5 == 4 {
		return null
	}
	return "'" + strings.ReplaceAll(c.text(n, v), "'", "''") + "'"
}

// text is the value in PostgreSQL's notation.
func (c *column) text(n, v int) string {
	if len(c.choices) > 0 {
		return c.choices[(n+v)%len(c.choices)]
	}
	switch c.typ {
	case "boolean":
		return strconv.FormatBool((n+v)%2 == 0)
	case "smallint", "integer", "bigint", "oid", "real", "double precision":
		return strconv.Itoa(n + 1000*v)
	case "numeric":
		return c.numeric(n, v)
	case "timestamp without time zone":
		return fmt.Sprintf("2024-02-29 %02d:%02d:%02d.%06d", n/60%24, n%60, v%60, n+v)
	case "timestamp with time zone":
		return fmt.Sprintf("2024-02-29 %02d:%02d:%02d.%06d+05:30", n/60%24, n%60, v%60, n+v)
	case "date":
		return fmt.Sprintf("%04d-%02d-%02d", 2000+v%50, 1+n/28%12, 1+n%28)
	case "time without time zone":
		return fmt.Sprintf("%02d:%02d:%02d", n/60%24, n%60, v%60)
	case "time with time zone":
		return fmt.Sprintf("%02d:%02d:%02d-03", n/60%24, n%60, v%60)
	case "interval":
		return fmt.Sprintf("%d months %d days %d seconds", v, n, n+v)
	case "bytea":
		return fmt.Sprintf(`\x00ff%06x%04x`, n, v)
	case "uuid":
		return fmt.Sprintf("00000000-0000-4000-8000-%08x%04x", n, v)
	case "inet", "cidr":
		return fmt.Sprintf("10.%d.%d.%d", v%250, n/250%250, n%250)
	case "macaddr":
		return fmt.Sprintf("02:00:00:%02x:%02x:%02x", v%250, n/250%250, n%250)
	case "json", "jsonb":
		return fmt.Sprintf(`{"n": %d, "v": %d, "text": "ü \" \\"}`, n, v)
	case "xml":
		return fmt.Sprintf("<n v='%d'>%d</n>", v, n)
	case "bit", "bit varying":
		return c.bits(n + v)
	case "character", "character varying", "text", "name", "citext", `"char"`:
		return c.words(n, v)
	}
	switch c.category {
	case "A":
		return fmt.Sprintf("{%d,%d}", n%1000, v)
	case "R":
		return fmt.Sprintf("[%d,%d]", n, n+v+1)
	}
	return fmt.Sprintf("%d", n+v)
}

func (c *column) numeric(n, v int) string {
	whole := strconv.Itoa(n + 1000*v)
	if room := c.precision - c.scale; c.precision > 0 && len(whole) > room {
		whole = whole[len(whole)-room:]
	}
	if c.precision == 0 || c.scale > 0 {
		return whole + ".5"
	}
	if whole == "" {
		return "0"
	}
	return whole
}

func (c *column) bits(n int) string {
	text := strconv.FormatInt(int64(n), 2)
	if c.typ == "bit" || c.length > 0 && len(text) > c.length {
		size := max(c.length, 1)
		text = strings.Repeat("0", size) + text
		text = text[len(text)-size:]
	}
	return text
}

// words fits as much as it can into the length: first what tells the rows apart, then the variant,
// then characters that want quoting, and now and then so much that it is stored elsewhere.
func (c *column) words(n, v int) string {
	text := strconv.FormatInt(int64(n), 36)
	if c.fixed && c.length == 1 {
		return string(rune('一' + n)) // there are enough of them
	}
	if c.typ == `"char"` || c.length == 1 {
		return string(rune('a' + (n+v)%26))
	}
	long := c.length == 0 && c.typ != "name" && !c.indexed
	for _, more := range []string{"-" + strconv.Itoa(v), ` 'q" \ ü`, strings.Repeat(".", n%3)} {
		if c.length == 0 || len(text)+len(more) <= c.length {
			text += more
		}
	}
	if long && n%4 == 1 {
		text += noise(n, 9000)
	}
	return text
}

// noise is text that does not compress.
func noise(seed, size int) string {
	x := uint64(seed)*2654435761 + 1
	b := make([]byte, size)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = 'a' + byte((x>>33)%26)
	}
	return string(b)
}
