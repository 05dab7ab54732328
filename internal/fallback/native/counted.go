package native

import (
	"slices"
	"strings"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

// Reported is what the server has counted more than before, as records of the audit log in the order of their types. before is what was seen last, nil
// at the first look: then everything is reported that is not 0, since nobody knows whether it was.
func Reported(region, peer string, s Seen, before *Seen) (out []audit.Counted) {
	for name, n := range s.Counts {
		was := int64(0)
		if before != nil && before.Since == s.Since {
			was = before.Counts[name]
		}
		if n <= was {
			continue
		}
		c := audit.Counted{Region: region, Origin: peer, Source: s.Since, Type: kind(name), Total: n}
		if before != nil {
			c.More = n - was
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b audit.Counted) int { return strings.Compare(a.Type, b.Type) })
	return out
}

// kind is the type of the audit log for a column: the conflicts have the names of the stream's.
func kind(column string) string {
	return strings.TrimSuffix(strings.TrimPrefix(column, "confl_"), "_count")
}
