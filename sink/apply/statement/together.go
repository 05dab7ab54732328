package statement

import (
	"regexp"
	"strconv"
	"strings"
)

var parameter = regexp.MustCompile(`\$[0-9]+`)

// Together makes one statement of several that write and return rows. Its parameters are theirs,
// one after the other; it returns how many rows each of them returned. Constraints that are not
// deferred are checked behind all of them.
func Together(sqls []string) string {
	var b strings.Builder
	from := 0
	for i, sql := range sqls {
		b.WriteString(map[bool]string{true: "with ", false: ", "}[i == 0] + "s" + strconv.Itoa(i) + " as (")
		most := 0
		// Quoted names may hold a dollar sign: only what stands outside of quotes is a parameter.
		for n, piece := range strings.Split(sql, `"`) {
			if n > 0 {
				b.WriteByte('"')
			}
			if n%2 == 1 {
				b.WriteString(piece)
				continue
			}
			b.WriteString(parameter.ReplaceAllStringFunc(piece, func(p string) string {
				k, _ := strconv.Atoi(p[1:])
				most = max(most, k)
				return "$" + strconv.Itoa(from+k)
			}))
		}
		from += most
		b.WriteByte(')')
	}
	b.WriteString(" select ")
	for i := range sqls {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(select count(*) from s" + strconv.Itoa(i) + ")")
	}
	return b.String()
}
