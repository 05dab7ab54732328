package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Stats sums up the whole log, as far as retention has left it.
type Stats struct {
	Total     int64            `json:"total"`
	ByType    map[string]int64 `json:"by_type"`
	ByVerdict map[string]int64 `json:"by_verdict"`
	LastAt    *time.Time       `json:"last_at,omitempty"`
	Last      string           `json:"last,omitempty"` // type and table of the newest
}

// ReadStats counts the log. It reads the whole table: for operators, not for every second.
func ReadStats(ctx context.Context, q Querier) (Stats, error) {
	s := Stats{ByType: map[string]int64{}, ByVerdict: map[string]int64{}}
	rows, err := q.Query(ctx, `SELECT coalesce(type, ''), coalesce(verdict, ''), count(*) FROM pgwaltz.conflict GROUP BY 1, 2`)
	if err != nil {
		return s, fmt.Errorf("count conflicts: %w", err)
	}
	var kind, verdict string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&kind, &verdict, &n}, func() error {
		s.Total += n
		s.ByType[kind] += n
		s.ByVerdict[verdict] += n
		return nil
	}); err != nil {
		return s, fmt.Errorf("count conflicts: %w", err)
	}
	rows, err = q.Query(ctx, `SELECT detected_at, concat(type, ' on ', schema_name, '.', table_name) FROM pgwaltz.conflict ORDER BY id DESC LIMIT 1`)
	if err != nil {
		return s, fmt.Errorf("read last conflict: %w", err)
	}
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&at, &s.Last}, func() error {
		s.LastAt = &at
		return nil
	}); err != nil {
		return s, fmt.Errorf("read last conflict: %w", err)
	}
	return s, nil
}

// CountOf counts the conflicts of a type; 0 where the session's role may not read the log.
func CountOf(ctx context.Context, q Querier, kind string) (int, error) {
	rows, err := q.Query(ctx, `select case when pg_catalog.has_table_privilege('pgwaltz.conflict', 'select')
  then (select pg_catalog.count(*) from pgwaltz.conflict where type = $1) else 0 end`, kind)
	if err != nil {
		return 0, fmt.Errorf("count conflicts of type %s: %w", kind, err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("count conflicts of type %s: %w", kind, err)
	}
	return n, nil
}
