package cases

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// expectation is one --@audit line for one side.
type expectation struct {
	text   string
	none   bool
	many   bool // any number of rows of any key
	kind   string
	table  string
	keys   []map[string]string // each must occur exactly once; more than one for a range
	winner string
	reason string
}

// kinds translates the words of the cases into the types of the audit log. Where one
// conflict has two names, one for each region that sees it, both are accepted.
var kinds = map[string][]string{
	"update_concurrent": {"update_origin_differs"},
	"delete_concurrent": {"delete_origin_differs", "update_deleted"},
	"update_deleted":    {"update_deleted", "delete_origin_differs"},
	"multiple_unique":   {"multiple_unique_conflicts"},
}

// quietTypes are notes about a row, not decisions about it: they are ignored unless a
// line asks for them by name.
var quietTypes = map[string]bool{"clock_skew": true}

// parseAudit reads `both|A|B: kind table key [winner=x] [reason=y]`, `none`, and
// `both: none`; the result maps sides to their expectation, both stands for all of them.
func parseAudit(arg string) (map[string]expectation, error) {
	side, rest, ok := strings.Cut(arg, ":")
	if !ok || strings.Contains(side, " ") {
		side, rest = "both", arg
	}
	e := expectation{text: strings.TrimSpace(rest)}
	f := strings.Fields(rest)
	for len(f) > 0 {
		k, v, ok := strings.Cut(f[len(f)-1], "=")
		if !ok || (k != "winner" && k != "reason") {
			break
		}
		if k == "winner" {
			e.winner = v
		} else {
			e.reason = v
		}
		f = f[:len(f)-1]
	}
	switch {
	case len(f) == 1 && f[0] == "none":
		e.none = true
	case len(f) == 1 && f[0] == "*":
		e.kind, e.table, e.many = "*", "*", true
	case len(f) >= 2:
		e.kind, e.table = f[0], f[1]
		if len(f) == 2 || f[2] == "*" {
			e.many = true
			break
		}
		keys, err := parseKeys(f[2:])
		if err != nil {
			return nil, err
		}
		e.keys = keys
	default:
		return nil, fmt.Errorf("read audit line %q: want side: kind table key [winner=] [reason=]", arg)
	}
	switch strings.TrimSpace(side) {
	case "both":
		return map[string]expectation{"A": e, "B": e, "C": e}, nil
	case "A", "B", "C":
		return map[string]expectation{strings.TrimSpace(side): e}, nil
	}
	return nil, fmt.Errorf("read audit line %q: side must be A, B, C or both", arg)
}

var rangeRE = regexp.MustCompile(`^(-?[0-9]+)\.\.(-?[0-9]+)$`)

func parseKeys(fields []string) ([]map[string]string, error) {
	keys := []map[string]string{{}}
	for _, f := range strings.Split(strings.Join(fields, ","), ",") {
		if f == "" {
			continue
		}
		col, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("read audit key %q: want column=value", f)
		}
		values := []string{v}
		if m := rangeRE.FindStringSubmatch(v); m != nil {
			from, _ := strconv.Atoi(m[1])
			to, _ := strconv.Atoi(m[2])
			values = nil
			for i := from; i <= to; i++ {
				values = append(values, strconv.Itoa(i))
			}
		}
		var next []map[string]string
		for _, k := range keys {
			for _, val := range values {
				n := map[string]string{col: val}
				for a, b := range k {
					n[a] = b
				}
				next = append(next, n)
			}
		}
		keys = next
	}
	return keys, nil
}

func (e expectation) fits(c harness.Conflict) bool {
	return kindFits(e.kind, c.Type) && (e.table == "*" || e.table == c.Table || e.table == c.Schema+"."+c.Table) &&
		(e.winner == "" || e.winner == c.Winner) && reasonFits(e.reason, c.Reason)
}

func kindFits(want, got string) bool {
	if want == "*" || want == got || slices.Contains(kinds[want], got) {
		return true
	}
	ok, err := path.Match(want, got)
	return err == nil && ok
}

// reasonFits: the last tie-break of the product is the content, where the cases name the
// origin; both words mean "decided by the last rule".
func reasonFits(want, got string) bool {
	if want == "" || want == got {
		return true
	}
	if strings.HasPrefix(want, "tie") {
		return strings.Contains(got, "tie") || strings.Contains(got, "content") || strings.Contains(got, "digest")
	}
	return false
}

// matchAudit compares the audit log of one side with all expectations for it: every row
// must be expected and every expected row must be there, once.
func matchAudit(side string, want []expectation, got []harness.Conflict) error {
	taken := make([]bool, len(got))   // stands for one expected key
	covered := make([]bool, len(got)) // needs no line of its own
	for i, c := range got {
		covered[i] = quietTypes[c.Type] && !slices.ContainsFunc(want, func(e expectation) bool { return e.kind == c.Type })
	}
	for _, e := range want {
		for _, k := range e.keys {
			i := -1
			for j, c := range got {
				if !taken[j] && keyFits(k, c.Key) && e.fits(c) {
					i = j
					break
				}
			}
			if i < 0 {
				return fmt.Errorf("audit log of %s: no row for %q, key %v; it holds %s", side, e.text, k, list(got, nil))
			}
			taken[i], covered[i] = true, true
			if e.kind == "*" { // any kind, any number of this key
				for j, c := range got {
					covered[j] = covered[j] || keyFits(k, c.Key) && e.fits(c)
				}
			}
		}
		if !e.many {
			continue
		}
		found := e.kind == "*"
		for i, c := range got {
			if e.fits(c) {
				covered[i], found = true, true
			}
		}
		if !found {
			return fmt.Errorf("audit log of %s: no row for %q; it holds %s", side, e.text, list(got, nil))
		}
	}
	// A line that names winner and reason speaks for a rule: further keys that the same
	// rule decided the same way belong to it.
	for _, e := range want {
		if e.winner == "" || e.reason == "" {
			continue
		}
		for i, c := range got {
			covered[i] = covered[i] || e.fits(c)
		}
	}
	if slices.Contains(covered, false) {
		return fmt.Errorf("audit log of %s: %d rows that no line expects: %s", side, count(covered, false), list(got, covered))
	}
	return nil
}

func keyFits(want, got map[string]string) bool {
	for k, v := range want {
		if got[k] != v {
			return false
		}
	}
	return len(want) == len(got)
}

func count(list []bool, v bool) int {
	n := 0
	for _, x := range list {
		if x == v {
			n++
		}
	}
	return n
}

func list(rows []harness.Conflict, skip []bool) string {
	var out []string
	for i, c := range rows {
		if skip != nil && skip[i] {
			continue
		}
		if len(out) == 5 {
			out = append(out, "…")
			break
		}
		out = append(out, c.String())
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, "; ")
}
