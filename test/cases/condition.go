package cases

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// condition is the tail of an assertion: operator, value, and how long it may take to
// come true (within) or must stay true (hold).
type condition struct {
	op     string
	value  string
	within time.Duration
	hold   time.Duration
}

var tailRE = regexp.MustCompile(`\s+(within|hold)\s+([0-9.]+(?:ms|s|m|h))\s*$`)
var opRE = regexp.MustCompile(`^(!=|>=|<=|=|>|<|!~|~|contains\b|lacks\b)\s*`)
var sumRE = regexp.MustCompile(`^-?[0-9]+(\s*[-+]\s*[0-9]+)+$`)

// parseCondition reads `[op] value [within d] [hold d]`; without an operator it is =.
func parseCondition(text string) (condition, error) {
	c := condition{op: "="}
	text = strings.TrimSpace(text)
	for {
		m := tailRE.FindStringSubmatchIndex(" " + text)
		if m == nil {
			break
		}
		padded := " " + text
		d, err := time.ParseDuration(padded[m[4]:m[5]])
		if err != nil {
			return c, fmt.Errorf("read duration: %w", err)
		}
		if padded[m[2]:m[3]] == "within" {
			c.within = d
		} else {
			c.hold = d
		}
		text = strings.TrimSpace(padded[:m[0]])
	}
	if m := opRE.FindStringSubmatch(text); m != nil {
		c.op, text = m[1], text[len(m[0]):]
	}
	c.value = strings.TrimSpace(text)
	if len(c.value) >= 2 && c.value[0] == '"' && c.value[len(c.value)-1] == '"' {
		c.value = c.value[1 : len(c.value)-1]
	}
	if sumRE.MatchString(c.value) {
		c.value = sum(c.value)
	}
	if c.op == "~" || c.op == "!~" {
		if _, err := regexp.Compile(c.value); err != nil {
			return c, fmt.Errorf("read pattern: %w", err)
		}
	}
	return c, nil
}

func sum(expr string) string {
	expr = strings.ReplaceAll(expr, " ", "")
	var total, n int64
	sign := int64(1)
	for i := 0; i < len(expr); i++ {
		switch ch := expr[i]; ch {
		case '+', '-':
			total += sign * n
			n, sign = 0, 1
			if ch == '-' {
				sign = -1
			}
		default:
			n = n*10 + int64(ch-'0')
		}
	}
	return strconv.FormatInt(total+sign*n, 10)
}

// holds compares numbers as numbers, WAL positions as positions, and the rest as text.
func (c condition) holds(got string) bool {
	switch c.op {
	case "contains":
		return strings.Contains(got, c.value)
	case "lacks":
		return !strings.Contains(got, c.value)
	case "~", "!~":
		return regexp.MustCompile(c.value).MatchString(got) == (c.op == "~")
	}
	cmp := compare(got, c.value)
	switch c.op {
	case "=":
		return cmp == 0
	case "!=":
		return cmp != 0
	case ">":
		return cmp > 0
	case ">=":
		return cmp >= 0
	case "<":
		return cmp < 0
	default:
		return cmp <= 0
	}
}

func compare(a, b string) int {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
	}
	if x, err := wal.ParseLSN(a); err == nil {
		if y, err := wal.ParseLSN(b); err == nil {
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
	}
	return strings.Compare(a, b)
}

// number reads integers, decimals and sizes such as 512MiB.
func number(s string) (float64, bool) {
	for unit, f := range map[string]float64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 1000, "MB": 1e6, "GB": 1e9} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v * f, err == nil
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

func (c condition) String() string { return c.op + " " + strconv.Quote(c.value) }
