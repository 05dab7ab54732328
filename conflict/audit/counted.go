package audit

import (
	"crypto/sha256"
	"fmt"
)

// Counted is what a server has counted of one kind of conflict or error, where it says nothing more of it: neither row nor key.
type Counted struct {
	Region, Origin string
	Source         string // what counts, and since when: totals of two sources are never compared
	Type           string // as Record.Type
	Total, More    int64  // More of them came since the last look; 0 where that is not known
}

// CountedSQL writes one; CountedArgs makes its arguments. A total that is in the log already is left out, so it may be repeated, by
// several processes as well.
const CountedSQL = `insert into pgwaltz.conflict (event_id, region, type, verdict, reason, origin) values ($1::text::uuid, $2, $3, 'counted', $4, $5) on conflict (event_id) do nothing`

// CountedArgs returns the arguments of CountedSQL.
func CountedArgs(c Counted) []any {
	reason := fmt.Sprintf("the server has counted %d in all; which rows they are stands in its log", c.Total)
	if c.More > 0 {
		reason = fmt.Sprintf("the server has counted %d more, %d in all; which rows they are stands in its log", c.More, c.Total)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", c.Region, c.Origin, c.Source, c.Type, c.Total))
	return []any{uuidText([16]byte(sum[:16])), c.Region, c.Type, reason, c.Origin}
}
