package tombstone

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot says which transactions of the server are visible.
type Snapshot struct {
	Low, High  uint32 // below Low all have ended, from High on none has begun
	InProgress []uint32
}

// ParseSnapshot reads one as the server prints it; nil where it is none.
func ParseSnapshot(text string) *Snapshot {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil
	}
	s := &Snapshot{}
	ids := append([]string{parts[0], parts[1]}, strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' })...)
	for i, id := range ids {
		n, err := strconv.ParseUint(id, 10, 64)
		switch {
		case err != nil:
			return nil
		case i == 0:
			s.Low = uint32(n)
		case i == 1:
			s.High = uint32(n)
		default:
			s.InProgress = append(s.InProgress, uint32(n))
		}
	}
	return s
}

// Shows reports whether what a transaction wrote is visible, given that it was committed since
// or before. Of a subtransaction it may say so wrongly (Above).
func (s *Snapshot) Shows(xid uint32) bool {
	switch {
	case int32(xid-s.Low) < 0:
		return true
	case int32(xid-s.High) >= 0:
		return false
	}
	return !slices.Contains(s.InProgress, xid)
}

// Above are the transactions in progress that a given one may be a subtransaction of: a snapshot does
// not name those, but they begin behind the transaction that they belong to.
func (s *Snapshot) Above(xid uint32) []uint32 {
	var out []uint32
	for _, x := range s.InProgress {
		if int32(x-xid) < 0 {
			out = append(out, x)
		}
	}
	return out
}

// ReadSnapshot takes a snapshot; the caller's own transaction counts as ended.
func ReadSnapshot(ctx context.Context, q Querier) (*Snapshot, error) {
	rows, err := q.Query(ctx, `select pg_catalog.pg_snapshot_xmin(s)::text::int8 & 4294967295, pg_catalog.pg_snapshot_xmax(s)::text::int8 & 4294967295,
  array(select x::text::int8 & 4294967295 from pg_catalog.pg_snapshot_xip(s) as x where x is distinct from pg_catalog.pg_current_xact_id_if_assigned())
from pg_catalog.pg_current_snapshot() as s`)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	defer rows.Close()
	var low, high int64
	var open []int64
	for rows.Next() {
		if err := rows.Scan(&low, &high, &open); err != nil {
			return nil, fmt.Errorf("take a snapshot: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	s := &Snapshot{Low: uint32(low), High: uint32(high)}
	for _, x := range open {
		s.InProgress = append(s.InProgress, uint32(x))
	}
	return s, nil
}
